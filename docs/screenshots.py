"""Takes the README's pictures from a running stack, with Debian's or any other Chromium.

Usage, after `make demo`:  .venv/bin/python docs/screenshots.py [--chromium /usr/bin/chromium]
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
]


def log_in(page: Page, url: str, password: str) -> None:
    page.goto(url)
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url("**/")


def take_serving_docs(page: Page, serving: str, path: Path) -> None:
    page.goto(f"{serving}/docs?model=churn")
    predict = page.locator("#operations-churn-predict_churn")
    predict.locator(".opblock-summary").click()
    predict.locator("button.execute").click()
    answer = predict.locator(".live-responses-table .highlight-code").first
    answer.wait_for()
    box = answer.bounding_box()
    height = box["y"] + box["height"] + page.evaluate("window.scrollY") + 20
    page.screenshot(
        path=path, full_page=True, clip={"x": 0, "y": 0, "width": 1400, "height": height}
    )


def fill_rollback_form(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 1100, "height": 900})
    page.goto(f"{url}/dags/evergreen__rollback")
    page.get_by_role("button", name="Trigger").first.click()
    page.wait_for_selector("text=Reason")
    page.locator("#element_model").click()
    page.get_by_role("option", name="churn").click()
    page.locator("#element_version").fill("1")
    page.locator("#element_reason").fill("Complaints since Tuesday")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--chromium", default=shutil.which("chromium") or shutil.which("google-chrome")
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images")
    options = parser.parse_args()
    from include.settings import get_settings
    from include.stack.airflow_client import open_client
    from include.stack.credentials import read_credentials
    from include.stack.layout import get_layout

    settings = get_settings()
    credentials = read_credentials(get_layout(settings.home))
    if credentials is None:
        sys.exit("no stack: run `make demo` first")
    with open_client(settings) as airflow:
        finished = [r for r in airflow.runs("churn__train") if r["state"] == "success"]
    run = finished[-1]["dag_run_id"]
    options.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=options.chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 860})
        log_in(page, settings.airflow, credentials.admin)
        page.goto(f"{settings.airflow}/dags/churn__train/runs/{run}")
        page.wait_for_selector("text=deploy")
        page.click("button[aria-label='Expand all task groups']")
        page.wait_for_selector("text=tune")
        page.screenshot(path=options.out / "airflow-run.png")
        take_serving_docs(page, settings.serving, options.out / "serving-docs.png")
        fill_rollback_form(page, settings.airflow)
        page.screenshot(path=options.out / "rollback-form.png")
        browser.close()
    for picture in sorted(options.out.glob("*.png")):
        print(picture.relative_to(ROOT))


if __name__ == "__main__":
    main()
