"""OpenCV's DNN module with the engine that it had before version 5, which knows other operators than the new one."""

from __future__ import annotations

import cv2

from deploy import opencv_dnn
from deploy.opencv_dnn import VERSION as VERSION


class Session(opencv_dnn.Session):
    """A file opened in OpenCV's classic engine."""

    def _read(self, path: str) -> cv2.dnn.Net:
        return cv2.dnn.readNetFromONNX(path, engine=cv2.dnn.ENGINE_CLASSIC)
