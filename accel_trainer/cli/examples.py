"""What one types, for the help of each verb: without the name of the program, 65 characters at most."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "init": (
        "init",
        "init my-lab --example",
        "init my-lab --dataset ~/Datasets/pets --architecture resnet50",
    ),
    "validate": (
        "validate mine.json",
        "validate training_queue/*.json --json",
    ),
    "show": (
        "show mine.json",
        "show resnet18-digits",
    ),
    "preview": (
        "preview mine.json",
        "preview mine.json --epoch 10 --out views.png",
    ),
    "add": (
        "add mine.json other.json",
        "add --evaluate models/resnet18/mine --degrade noise blur",
    ),
    "sweep": (
        "sweep mine.json --set seed=0,1,2 --set batch_size=64,256 --add",
        "sweep mine.json --set optimizer_args.lr=log:1e-4:1 --random 20",
    ),
    "train": (
        "train mine.json",
        "train mine.json --gpus 0,1",
    ),
    "profile": (
        "profile mine.json",
        "profile mine.json --steps 100 --trace mine.trace.json",
    ),
    "models": (
        "models",
        "models --family cornet",
    ),
    "schema": ("schema --output job.schema.json",),
    "migrate": ("migrate old.json",),
    "run-queue": (
        "run-queue",
        "run-queue --gpus-per-job 1",
        "run-queue --watch",
        "run-queue --slurm --partition gpu --time 12:00:00",
    ),
    "status": (
        "status",
        "status --watch",
        "status --json",
    ),
    "logs": (
        "logs resnet18-digits --follow",
        "logs resnet18-digits -n 50",
    ),
    "wait": (
        "wait",
        "wait resnet18-digits cornet-digits",
    ),
    "hold": ("hold resnet18-digits",),
    "release": ("release resnet18-digits",),
    "cancel": ("cancel resnet18-digits",),
    "retry": (
        "retry resnet18-digits",
        "retry --failed",
    ),
    "rm": ("rm resnet18-digits",),
    "move": ("move resnet18-digits --to ../other/training_queue",),
    "pause": ("pause",),
    "resume": ("resume",),
    "allow": ("allow my_lab", "allow"),
    "reclaim": ("reclaim",),
    "compare": (
        "compare models",
        "compare models --where 'lr>=0.01' --sort=-best",
        "compare models --group-by all-but-seed",
        "compare models --html report.html --watch",
    ),
    "export": (
        "export models/resnet18/mine shared --format hf",
        "export models/resnet18/mine plain --format torchvision",
    ),
    "plot": ("plot models --y acc1,train/loss", "plot models --group-by architecture --out fig.pdf"),
    "push": ("push shared my-lab/mine --dry-run",),
    "evaluate": (
        "evaluate models/resnet18/mine",
        "evaluate models/resnet18/mine --degrade noise blur",
        "evaluate --architecture resnet50 --pretrained DEFAULT",
    ),
    "measure": (
        "measure trials.parquet",
        "measure trials.parquet --against people.csv",
    ),
    "features": ("features models/resnet18/mine --layers avgpool --out features",),
    "probe": ("probe models/resnet18/mine --layers layer3,avgpool",),
    "rdm": ("rdm features --out rdms",),
    "rsa": ("rsa rdms --against brains",),
    "leet": ("leet models",),
    "pack": (
        "pack my-photographs",
        "pack my-photographs-256.pack --verify",
    ),
    "degrade": (
        "degrade --list",
        "degrade noise --sheet sheet.png",
    ),
    "make-occluders": ("make-occluders occluders --forms mud_splash --number 10",),
    "doctor": (
        "doctor",
        "doctor --queue /mnt/shared/training_queue",
    ),
}
