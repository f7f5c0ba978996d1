"""A released model that answers by itself: ``Predictor(folder)`` needs numpy, scipy, pyproj and ONNX Runtime alone.

Belongs here: what whoever has nothing but a release imports. Does not belong here: homes, databases, graphs. Nothing
that this room imports may load torch, pandas, pydantic or onnx (a test looks at what a fresh process loads).
"""

from heimdall_assets.formats import Stated
from heimdall_assets.inference.answers import Answer
from heimdall_assets.inference.files import read_recording
from heimdall_assets.inference.predictor import Predictor
from heimdall_assets.inference.receivers import Receiver
from heimdall_assets.physical import Recording

__all__ = ["Answer", "Predictor", "Receiver", "Recording", "Stated", "read_recording"]
