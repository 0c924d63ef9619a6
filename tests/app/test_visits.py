"""Visits of the page in a browser: from photos to a model that is downloaded and works."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_metaprune.app.build import launch, make_app
from hf_metaprune.data.task import TaskData
from hf_metaprune.result import load_result

from .conftest import Served, Visit, wait_until, write_photos

Visits = Callable[..., Visit]


def test_from_an_example_to_a_model_on_disk(visit: Visits, tmp_path: Path, examples: Path, bank_folder: Path) -> None:
    one = visit()
    one.wait_for_bank(bank_folder)
    one.message("#size", "of the base")  # before anything is chosen
    usual = one.text("#size")
    slider = one.page.get_by_label("range slider for How small")
    ratio = slider.input_value()

    def other_size() -> bool:
        slider.press("ArrowLeft")  # again, if the page has set it back to the bank's own while it started
        return one.text("#size") != usual

    assert wait_until(other_size)
    slider.fill(ratio)
    assert wait_until(lambda: one.text("#size") == usual)
    one.take_example()
    one.set_steps(20)
    one.make()
    one.finish()
    assert "recognized" in one.text("#result")
    assert one.page.locator("#neighbors svg").get_attribute("aria-label")
    assert "of the base" in one.text("#size")
    one.page.locator("#layer input").click()
    one.page.get_by_role("option").first.click()
    first = one.page.locator("#layer input").input_value()
    one.message("#vote", f"In {first} each mark")
    with one.page.expect_download() as coming:
        one.page.locator("#download").click()
    path = tmp_path / "model.zip"
    coming.value.save_as(path)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    result = load_result(tmp_path / "model")
    assert result.report.options["steps"] == 20
    photo = next(examples.rglob("*.png"))
    assert result.predict(photo)[0]["label"] in {folder.name for folder in (examples / "three_things").iterdir()}
    assert "<html" in (tmp_path / "model" / "report.html").read_text()
    one.page.locator("#photo input[type=file]").set_input_files(str(photo))
    one.page.locator("#answer").get_by_text("Most likely").wait_for()


@pytest.mark.slow
def test_own_photos_and_names_with_markup(visit: Visits, task_data: TaskData, tmp_path: Path) -> None:
    files = write_photos(tmp_path, task_data, (0, 2))
    one = visit()
    nasty = "<img src=x onerror=alert(1)> ${7*7} {{7*7}}"
    for name, photos in zip((nasty, "plain"), files.values(), strict=True):
        one.add(name, photos, "Added 12 photos to")
    assert nasty in one.text("#classes")
    one.set_steps(20)
    one.make()
    one.finish()
    assert nasty in one.text("#classes")
    assert one.page.locator("img[src=x]").count() == 0


@pytest.mark.slow
def test_photos_without_labels_teach_the_model(visit: Visits, task_data: TaskData, tmp_path: Path) -> None:
    files = write_photos(tmp_path, task_data, (0, 2))
    one = visit()
    one.page.get_by_role("tab", name="Without labels").click()
    unlabeled = [path for photos in files.values() for path in photos[6:]]
    one.page.locator("#unlabeled-files input[type=file]").set_input_files([str(path) for path in unlabeled])
    one.page.locator(f'td[aria-label="{unlabeled[-1].name}"]').last.wait_for()
    one.press("Add these photos")
    one.message("#messages", "Added 12 photos to those without labels.")
    assert "12 photos without labels" in one.text("#classes")
    for name, photos in files.items():
        one.add(name, photos[:6], "Added 6 photos to")
    one.set_steps(20)
    one.make()
    one.finish()
    one.message("#making-messages", "The large network taught it on 12 photos without labels, too.")
    one.page.locator("#which input").click()
    one.page.get_by_role("option", name="Photos without labels").click()
    one.press("Remove this class")
    one.message("#messages", "“Photos without labels” is removed.")
    assert "without labels" not in one.text("#classes")


@pytest.mark.slow
def test_a_photo_of_the_camera_is_taken(visit: Visits) -> None:
    one = visit(permissions=["camera"])
    one.page.get_by_role("tab", name="My photos").click()
    one.page.get_by_label("Name of a class").fill("ball")
    one.press("Or take a photo with the camera")
    one.page.get_by_text("Click to Access Webcam").click()
    one.page.get_by_label("capture photo").wait_for()
    # On a busy machine the button is there before the first picture is, and a press is lost.
    one.page.wait_for_function("document.querySelector('#camera video').videoWidth > 0")
    one.page.get_by_label("capture photo").click()
    one.page.locator("#camera img").wait_for()
    one.press("Add to the class")
    one.message("#messages", "Added 1 photo to “ball”.")
    assert one.page.locator("#classes .class img").count() == 1


@pytest.mark.slow
def test_what_cannot_be_used_is_said(visit: Visits, task_data: TaskData, tmp_path: Path) -> None:
    one = visit()
    one.make()
    one.page.get_by_role("alert").filter(has_text="add photos of at least two").wait_for()
    assert "press “Add to the class”" not in one.text("#making-messages")
    svg = tmp_path / "drawing.png"
    svg.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    one.add("cat", [svg], "Added 0 photos.")
    assert "drawing.png: not a photo in a common format" in one.text("#messages")
    one.add(" ", [svg], "a class needs a name")
    one.make()
    one.message("#making-messages", "press “Add to the class” to add the photos that you have chosen")


@pytest.mark.slow
def test_a_training_can_be_stopped_and_started_again(visit: Visits) -> None:
    one = visit()
    one.take_example()
    one.set_steps(400)
    one.make()
    one.page.locator("#progress").get_by_text("Training: step").wait_for()
    assert wait_until(lambda: one.page.evaluate("document.activeElement.id") == "stop")
    one.page.keyboard.press("Enter")
    one.page.locator("#making-messages").get_by_text("Stopped.").wait_for()
    assert wait_until(lambda: one.page.evaluate("document.activeElement.id") == "go")
    assert one.page.locator("#result .tiles").count() == 0
    one.set_steps(20)
    one.make()
    one.finish()


@pytest.mark.slow
def test_a_training_ends_when_its_photos_are_others(visit: Visits, task_data: TaskData, tmp_path: Path) -> None:
    one = visit()
    one.take_example()
    one.set_steps(400)
    one.choose("cow", next(iter(write_photos(tmp_path, task_data, (4,)).values())))
    one.make()
    one.page.locator("#progress").get_by_text("Training: step").wait_for()
    one.press("Add to the class")
    one.message("#making-messages", "because you changed the photos")
    assert one.page.locator("#result .tiles").count() == 0
    one.page.locator("#neighbors").wait_for(state="hidden")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Gradio's, in this process for once
def test_a_page_that_was_idle_for_too_long_says_so(visit: Visits, bank_folder: Path, examples: Path) -> None:
    app = launch(make_app(bank_folder, examples), quiet=True)
    try:
        one = visit(app.page.local_url)
        one.take_example()
        one.set_steps(20)
        one.make()
        one.finish()
        visitors = app.shared.visitors
        visitors.idle_seconds, usual = 0, visitors.idle_seconds
        visitors.get("another")
        visitors.idle_seconds = usual
        one.press("Compare with baselines")
        one.message("#comparison-messages", "The model does not exist any more")
        one.press("Make an ONNX file")
        one.message("#export-messages", "The model does not exist any more")
        one.page.locator("#photo input[type=file]").set_input_files(str(next(examples.rglob("*.png"))))
        one.message("#answer", "The model does not exist any more")
        one.make()
        one.message("#making-messages", "idle for so long that its photos are deleted")
        assert all(one.page.get_by_role("button", name=name).is_visible() for name in ("Compare", "Make an ONNX"))
    finally:
        app.page.close(verbose=False)


@pytest.mark.slow
def test_two_visitors_see_their_own_things_only(
    visit: Visits, served: Served, task_data: TaskData, tmp_path: Path
) -> None:
    files = write_photos(tmp_path, task_data, (0, 2, 4, 5))
    photos = list(files.values())
    one, two = visit(), visit()
    for name, some in zip(("ant", "bee"), photos[:2], strict=True):
        one.add(name, some, f"Added 12 photos to “{name}”.")
    for name, some in zip(("cod", "dog"), photos[2:], strict=True):
        two.add(name, some, f"Added 12 photos to “{name}”.")
    for here in (one, two):
        here.set_steps(20)
        here.make()
    one.finish()
    two.finish()
    for mine, theirs, here in ((("ant", "bee"), ("cod", "dog"), one), (("cod", "dog"), ("ant", "bee"), two)):
        page = here.page.locator("body").inner_text()
        assert all(name in page for name in mine)
        assert not any(name in page.split() for name in theirs)
    assert len(served.visitors_files()) >= 2
    one.context.close()
    two.context.close()
    assert wait_until(lambda: served.visitors_files() == [])  # who leaves is forgotten


@pytest.mark.slow
def test_a_class_is_removed_and_all_is_forgotten_when_asked_twice(
    visit: Visits, task_data: TaskData, tmp_path: Path
) -> None:
    one = visit()
    page = one.page
    photos = list(write_photos(tmp_path, task_data, (0, 2, 4)).values())
    for name, some in zip(("ant", "bee", "cow"), photos, strict=True):
        one.add(name, some, f"Added 12 photos to “{name}”.")
        assert page.get_by_label("Name of a class").input_value() == ""  # or the next ones would join this class
    page.locator("#which input").click()
    page.get_by_role("option", name="bee").click()
    one.press("Remove this class")
    one.message("#messages", "“bee” is removed.")
    assert page.locator("#classes .class b").all_inner_texts() == ["ant", "cow"]
    one.set_steps(20)
    one.make()
    one.finish()
    page.get_by_label("Name of a class").fill("half a")
    one.press("Start over")
    one.press("No, keep them")
    assert page.locator("#classes .class").count() == 2
    one.press("Start over")
    one.press("Yes, delete all")
    one.message("#messages", "All photos and the model are deleted.")
    one.message("#classes", "No photos yet.")
    assert page.locator("#result .tiles").count() == 0
    assert page.get_by_label("Name of a class").input_value() == ""
    one.make()
    one.message("#making-messages", "add photos of at least two")


@pytest.mark.slow
def test_other_photos_and_another_size_are_none_of_the_model_that_there_is(
    visit: Visits, task_data: TaskData, tmp_path: Path
) -> None:
    one = visit()
    one.take_example()
    one.set_steps(20)
    one.make()
    one.finish()
    one.message("#making-messages", "Done in")
    assert "Your model was made" not in one.text("#size")
    slider = one.page.get_by_label("range slider for How small")
    slider.focus()
    one.page.keyboard.press("ArrowLeft")
    one.message("#size", "Your model was made at")
    number = one.page.get_by_label("number input for How small")
    for value in ("5", "", "0.8"):
        number.fill(value)
        number.press("Tab")
        one.message("#size", "of the base")
    photos = next(iter(write_photos(tmp_path, task_data, (4,)).values()))
    svg = tmp_path / "drawing.png"
    svg.write_text("<svg/>")
    one.add("cow", [svg], "Added 0 photos")  # nothing has changed
    assert one.page.locator("#result .tiles").count() == 1
    one.add("cow", photos, "Added 12 photos to “cow”.")
    one.page.locator("#result .tiles").wait_for(state="detached")
    assert not one.page.locator("#neighbors").is_visible()
