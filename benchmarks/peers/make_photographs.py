"""Make photographs and a raw pack of them, once, and say where they are: `python make_photographs.py FOLDER NUMBER`.

They are written to standard output as JSON: the folder of the files, and the pack.
"""

import json
import sys
from pathlib import Path

from loading import packed, photographs

from accel_trainer.data.open import open_data_set


def main() -> None:
    place, number = Path(sys.argv[1]), int(sys.argv[2])
    place.mkdir(exist_ok=True)
    files = photographs(place, number)
    packed(open_data_set(str(files), place, None, None), files, "raw")
    print(json.dumps({"files": str(files), "pack": str(files / "raw.pack")}))


if __name__ == "__main__":
    main()
