"""Stop and resume from the page, on a real sweep with its live page beside it."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from support.driver_process import PATIENCE_SECONDS, write_spec
from support.factories import make_sweep
from support.served import Served, add_run
from support.world import World

from sweeper.cli import interrupts
from sweeper.errors import RunFolderError
from sweeper.serve.beside import serving
from sweeper.serve.control import Control
from sweeper.store.folder import RunFolder
from sweeper.store.lock import DriverLock
from sweeper.store.records import read_records


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_server_beside_a_sweep_ends_with_it_even_where_it_is_killed(tmp_path: Path) -> None:
    root = add_run(tmp_path, "run", make_sweep()[:5]).root
    with serving(root) as beside:
        address = beside.address()
        assert answers(f"{address}runs/run/live.json")
    assert beside.process.poll() is not None and not answers(address)
    script = (
        "import sys, time; from pathlib import Path; from sweeper.serve.beside import serving\n"
        "with serving(Path(sys.argv[1])) as beside:\n"
        "    print(beside.process.pid, beside.address(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        assert answers(address)
        process.kill()
    deadline = time.monotonic() + 20
    while answers(address):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_cannot_be_resumed_is_said(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "run", make_sweep()[:5])
    control = Control()
    with DriverLock(folder), pytest.raises(RunFolderError, match="runs already"):
        control.resume(folder)
    with pytest.raises(RunFolderError, match="runs already"):
        Control(beside=True).resume(folder)
    folder.spec.write_text("- nonsense")
    assert control.note(folder) == ""
    assert control.resume(folder).startswith("resuming as process ")
    with pytest.raises(RunFolderError, match="runs already"):
        control.resume(folder)
    deadline = time.monotonic() + 60
    while control.note(folder) == "resuming: the driver is starting":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert re.match(
        r"the resumed sweep ended with exit code 2: error: .*spec", control.note(folder)
    )


@pytest.mark.slow
def test_a_sweep_is_stopped_and_resumed_from_its_page(
    chromium: Browser, tiny_world: World, tmp_path: Path
) -> None:
    out = RunFolder(tmp_path / "runs" / "a run")
    out.root.parent.mkdir()
    spec = write_spec(tiny_world, tmp_path / "spec.yaml")
    text = spec.read_text(encoding="utf-8")
    assert text.count("\n    - 6\n") == 1
    # So that there is time to stop it.
    spec.write_text(text.replace("\n    - 6\n", "\n    - 400\n"), encoding="utf-8")
    words = ["run", str(spec), "--out", str(out.root), "--serve"]
    log = tmp_path / "log.txt"
    with log.open("wb") as file:
        driver = subprocess.Popen(
            [sys.executable, "-m", "sweeper", *words],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    page = chromium.new_page()
    patient = PATIENCE_SECONDS * 1000
    report = page.frame_locator("iframe:not(.next)")
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := re.search(r"live page: (http://\S+)", log.read_text())):
            assert driver.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        page.goto(found[1])  # Before there is a run; its page follows by itself.
        expect(page.locator("#live-count")).to_contain_text(
            re.compile(r"[1-9]\d* of \d+ records"), timeout=patient
        )
        expect(page.locator("#live-state")).to_have_text("running")
        expect(report.locator(".so-far")).to_be_visible(timeout=patient)
        page.locator("#live-stop").click()
        page.locator("#live-ask").get_by_role("button", name="Cancel").click()
        assert driver.poll() is None
        page.locator("#live-stop").click()
        page.locator("#live-ask-yes").click()
        assert driver.wait(PATIENCE_SECONDS) == interrupts.INTERRUPTED, log.read_text()
        assert "sweeper serve '" in log.read_text()
        expect(page.locator("#live-state")).to_have_text("no answer")
    finally:
        if driver.poll() is None:
            os.kill(driver.pid, signal.SIGTERM)
            driver.wait(PATIENCE_SECONDS)
    planned, kept = out.planned_records(), len(read_records(out.records).records)
    assert 0 < kept < planned
    server = Served(out.root.parent, token="token")
    try:
        page.goto(f"http://127.0.0.1:{server.port}/runs/a%20run/")
        expect(page.locator("#live-state")).to_have_text("stopped")
        page.locator("#live-resume").click()
        page.locator("#live-ask-yes").click()
        expect(page.locator("#live-note")).to_contain_text("resuming")
        expect(page.locator("#live-state")).to_have_text("running", timeout=patient)
        expect(page.locator("#live-state")).to_have_text("complete", timeout=patient)
        expect(report.locator(".answer")).not_to_contain_text("So far", timeout=patient)
        expect(page.locator("#live-note")).to_be_hidden()
    finally:
        page.close()
        server.stop()
    assert len(read_records(out.records).records) == planned
    assert f"resuming: {kept} of {planned} records" in out.resume_log.read_text()
