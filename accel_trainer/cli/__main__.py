from accel_trainer.cli import main

main()
