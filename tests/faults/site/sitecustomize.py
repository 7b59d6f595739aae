"""Python imports this at its start, in every process that a test of faults starts."""

import injection

injection.arm_from_environment()
