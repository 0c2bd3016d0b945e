"""Write docs/images/report_*.png: the report page of the bundled ResNet-20, light and wide, dark and narrow.

    python tools/report_screenshots.py

Needs Playwright for Python (`pip install playwright`) and Chromium (`apt-get install chromium`).
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
ASSETS = Path("srr_onnx/assets")
COMMAND = ["prune", f"{ASSETS}/resnet20_emoji.onnx", "--flops", "44%", "--data", f"{ASSETS}/emoji_train.npz"]
# Name: width and height in CSS pixels, color scheme, the section that is at the top, colors of the file.
PICTURES = {
    "report_wide": (1280, 1180, "light", "layers", 128),
    "report_narrow": (390, 1180, "dark", "summary", 128),
}


def main() -> None:
    """Prune, then take the pictures."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_path = Path(folder) / "report.html"
        outputs = ["-o", f"{folder}/small.onnx", "--report", str(page_path)]
        paths = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "srr_onnx.cli.main", *COMMAND, *outputs], cwd=ROOT, env=paths, check=True)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (width, height, scheme, section, colors) in PICTURES.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(page_path.as_uri())
            page.locator(f"#{section}").evaluate("(element) => scrollTo(0, element.offsetTop - 14)")
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(colors)
            picture.save(ROOT / "docs" / "images" / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
