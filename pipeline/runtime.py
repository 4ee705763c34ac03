"""The public import path of the serving runtime: `from pipeline.runtime import Runtime`. Its code is in pipeline/serving/runtime.py."""

from pipeline.serving.runtime import Runtime as Runtime
