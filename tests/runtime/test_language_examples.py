"""The examples whose jobs are found while they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flowq.client import Run

WORKFLOWS = Path(__file__).parents[2] / "workflows"
Work = Callable[..., None]


def test_the_gallery_shows_as_many_photos_as_there_are(run_example: Callable[..., Run]) -> None:
    ran = run_example("gallery.yaml", photos=5)
    assert ran.status().state == "succeeded"
    page = Path("out/gallery/index.html").read_text("utf-8").splitlines()
    assert page[0] == "<h1>5 photos</h1>"
    assert [line.split('"')[1] for line in page[1:]] == [
        f"photos/photo-{number:03}.thumb.ppm" for number in range(1, 6)
    ]
    thumb = Path("out/gallery/photos/photo-001.thumb.ppm").read_bytes()
    assert thumb.startswith(b"P6 16 12 255\n")
    assert len(thumb) == len(b"P6 16 12 255\n") + 16 * 12 * 3
    assert ran.status().jobs["publish"].state == "skipped"
    assert ran.results()["notify"] == "5 photos at out/gallery/index.html"


def test_a_gallery_of_nothing_is_a_page_all_the_same(run_example: Callable[..., Run]) -> None:
    ran = run_example("gallery.yaml", photos=0)
    assert ran.status().state == "succeeded"
    assert Path("out/gallery/index.html").read_text("utf-8").startswith("<h1>0 photos</h1>")


def test_the_gallery_is_copied_when_it_is_published(run_example: Callable[..., Run]) -> None:
    ran = run_example("gallery.yaml", photos=1, publish=True)
    assert Path("out/gallery/published/index.html").exists()
    assert ran.results()["notify"] == "1 photos at out/gallery/published"


def test_the_crawl_reads_every_page_once(run_example: Callable[..., Run]) -> None:
    ran = run_example("crawl.yaml", size=50)
    status = ran.status()
    assert status.state == "succeeded"
    assert ran.results()["sitemap"]["pages"] == 50
    assert len([name for name in status.jobs if name.startswith("page[")]) == 50
    assert status.jobs["page[/49]"].attempts == 1


def test_the_sweep_stops_when_it_is_good_enough(run_example: Callable[..., Run]) -> None:
    ran = run_example("sweep.yaml")
    assert ran.status().state == "succeeded"
    counts = ran.status().count_by_state()
    assert counts["skipped"] > 0
    assert ran.results()["train"].startswith("trained with depth=")


def test_a_sweep_that_finds_nothing_good_trains_nothing(run_example: Callable[..., Run]) -> None:
    ran = run_example("sweep.yaml", target=2.0)
    assert ran.status().state == "succeeded"
    assert ran.status().jobs["train"].state == "skipped"
    assert ran.results()["report"][0].startswith("tried ")
