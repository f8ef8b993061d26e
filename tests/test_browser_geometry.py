"""The notebook `widgets/circle`'s and `widgets/playground`'s widgets in a real browser: drag a point, move it with
the keyboard, switch losses, choose a row."""
import re
import time
from dataclasses import replace

import pytest

pytest.importorskip("anywidget", reason="the widgets need anywidget: pip install anywidget")
from apse_nb.widgets.circle import (
    Circle, ROLES, circle_values, losses_sentence, point_texts, positive_strip, strip_sentence)
from apse_nb.widgets.playground import loss_on_batch, loss_sentence, make_batch, pair_counts

from conftest import on_circle

PAGE = ("from apse_nb.widgets.circle import NegativeGeometry\nfrom apse_nb.widgets.playground import LossPlayground",
        "NegativeGeometry()", "LossPlayground()")


def until(condition, message: str, seconds: float = 30):
    "Wait for a condition on the page; Python draws in another process."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(message)


class Page:
    "The page with both widgets, and what it says."

    def __init__(self, page):
        self.page = page
        self.points = {role: page.locator(".apse-circle [role=slider]").nth(i) for i, role in enumerate(ROLES)}
        self.lines = page.locator("p[role=status], p[role=alert]")

    def source(self, alt: str) -> str:
        "The image whose description begins so."
        return self.page.locator(f"img[alt^='{alt}']").get_attribute("src")

    def described(self, alt: str) -> str:
        "The description that begins so, in full."
        return self.page.locator(f"img[alt^='{alt}']").get_attribute("alt") or ""

    def negatives(self) -> list[str]:
        "The generated negatives as they are drawn."
        return self.page.locator(".apse-circle .generated").evaluate_all("all => all.map(n => n.getAttribute('d'))")

    def agrees(self, circle: Circle) -> None:
        "The page shows what Python computes for this circle: texts of the points, losses, the turning point."
        reading, forces = circle_values(circle), strip_sentence(circle, positive_strip(circle))

        def texts():
            return [point.get_attribute("aria-valuetext") for point in self.points.values()]
        until(lambda: texts() == point_texts(circle, reading),
              f"points say {texts()}, not {point_texts(circle, reading)}")
        until(lambda: self.lines.nth(1).inner_text() == losses_sentence(reading),
              f"the losses read {self.lines.nth(1).inner_text()!r}, not {losses_sentence(reading)!r}")
        until(lambda: self.described("Bars").endswith(f"{losses_sentence(reading)} {forces}"),
              "the bars show another state")
        until(lambda: self.lines.nth(2).inner_text() == forces, f"the forces read {self.lines.nth(2).inner_text()!r}")

    def type_into(self, label: str, value: str) -> None:
        field = self.page.get_by_role("spinbutton", name=label).first
        field.fill(value)
        field.press("Enter")

    def choose(self, label: str, option: str) -> None:
        "An option of the playground."
        self.page.locator(".widget-dropdown", has_text=label).last.locator("select").select_option(option)

    def touches(self, kind: str, loss: str, scale: float) -> int:
        "How many pairs the playground says that a loss touches; the page shows what Python computes."
        wanted = loss_sentence(kind, loss, scale)
        until(lambda: self.lines.nth(4).inner_text() == wanted,
              f"the playground reads {self.lines.nth(4).inner_text()!r}, not {wanted!r}")
        until(lambda: self.described("Heat maps").endswith(wanted), "the heat maps show another state")
        kinds = pair_counts(loss_on_batch(kind, loss, scale), make_batch(kind).labels)
        count = sum(c["touched"] for c in kinds.values())
        assert int(re.search(r"touches (\d+) of 992", self.lines.nth(4).inner_text())[1]) == count
        return count


def drag_a_point(shown: Page, shot) -> Circle:
    "By mouse: from 110° to 150°."
    page, circle = shown.page, Circle()
    shown.agrees(circle)
    shot(page, "geometry_start")
    bars, diamonds = shown.source("Bars"), shown.negatives()
    box = page.locator(".apse-circle").bounding_box()
    page.mouse.move(*on_circle(box, 110))
    page.mouse.down()
    page.mouse.move(*on_circle(box, 130), steps=4)
    page.mouse.move(*on_circle(box, 150), steps=4)
    page.mouse.up()
    positive = shown.points["positive"]
    until(lambda: positive.get_attribute("aria-valuenow") == "150",
          f"dragged to {positive.get_attribute('aria-valuenow')}")
    circle = replace(circle, positive=150)
    shown.agrees(circle)
    until(lambda: shown.source("Bars") != bars, "the bars did not change")
    assert shown.negatives() != diamonds
    shot(page, "geometry_dragged")
    return circle


def move_points_by_keyboard(shown: Page, circle: Circle) -> Circle:
    "The drag left the focus on the positive; Tab goes on to the next point."
    page = shown.page
    for key in ("ArrowRight", "ArrowRight", "PageDown", "Shift+ArrowRight"):
        page.keyboard.press(key)
    circle = replace(circle, positive=150 - 1 - 1 - 10 - 10)
    shown.agrees(circle)
    page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == "negative of the same polarity (excitement)"
    page.keyboard.press("Home")
    circle = replace(circle, same=0)
    shown.agrees(circle)
    return circle


def refuse_a_value(shown: Page, circle: Circle) -> Circle:
    "It is said, and nothing changes."
    shown.type_into("anchor as excitement", "0.95")
    until(lambda: shown.lines.nth(2).get_attribute("role") == "alert", "confidences above 1 were not refused")
    assert "cannot add up to more than 1" in shown.lines.nth(2).inner_text()
    shown.type_into("anchor as excitement", "0.6")
    circle = replace(circle, anchor_confidences=(.6, .125))
    shown.agrees(circle)
    return circle


def choose_one_negative(shown: Page, circle: Circle, shot) -> None:
    "And lambda_0 by hand."
    page = shown.page
    page.get_by_label("opposite negative too").click()
    shown.agrees(replace(circle, negatives=1))
    assert shown.points["opposite"].is_hidden() and len(shown.negatives()) == 1
    page.locator(".widget-dropdown", has_text="hardness").locator("select").select_option("λ₀ by hand")
    until(lambda: "never turns round" in shown.described("Bars"), "a constant lambda_0 has no turning point")
    page.wait_for_timeout(300)
    shot(page, "geometry_keyboard")


def choose_losses(shown: Page, shot) -> None:
    "Each loss of the playground touches the pairs that it should."
    page = shown.page
    assert shown.touches("trained", "EP", 1.) == 768
    sheet = shown.source("Heat maps")
    page.wait_for_timeout(500)
    shot(page, "playground_start")
    shown.choose("loss", "EP, intra only")
    assert shown.touches("trained", "EP, intra only", 1.) == 384
    until(lambda: shown.source("Heat maps") != sheet, "the heat maps did not change")
    sheet = shown.source("Heat maps")
    shown.choose("loss", "GEP")
    shown.choose("batch", "random directions")
    assert shown.touches("random", "GEP", 1.) == 768
    until(lambda: shown.source("Heat maps") != sheet, "the heat maps did not change")


def choose_an_anchor(shown: Page) -> None:
    "Click row 20 of the left map, then two rows down and a class up with the keys."
    page, before = shown.page, shown.source("The cosines")
    rows = page.get_by_role("slider", name="anchor row")
    left = page.locator(".apse-rows div").nth(1)
    left.click(position=dict(x=left.bounding_box()["width"]/3, y=left.bounding_box()["height"]*20.5/32))
    until(lambda: (rows.get_attribute("aria-valuetext") or "").startswith("row 20, disgust"),
          f"clicked row 20, chosen {rows.get_attribute('aria-valuetext')}")
    for key in ("ArrowDown", "ArrowDown", "PageUp"):
        page.keyboard.press(key)
    gradient = loss_on_batch("random", "GEP", 1.).gradient[18]
    expected = f"row 18, anger: {(gradient < 0).sum()} pulled, {(gradient > 0).sum()} pushed"
    until(lambda: rows.get_attribute("aria-valuetext") == expected, f"{rows.get_attribute('aria-valuetext')!r}, not "
          f"{expected!r}")
    until(lambda: shown.source("The cosines") != before, "the anchor's image did not change")


def choose_scales(shown: Page, shot) -> None:
    "A scale changes N-pair; contrastive has none."
    page = shown.page
    scale = page.get_by_role("spinbutton", name="scale").last
    shown.choose("batch", "scenes, trained network")
    shown.choose("loss", "N-pair")
    scale.fill("8")
    page.keyboard.press("Enter")
    assert shown.touches("trained", "N-pair", 8.) == 768
    page.wait_for_timeout(500)
    shot(page, "playground_scale8")
    shown.choose("loss", "contrastive")
    assert shown.touches("trained", "contrastive", 8.) == 376
    assert scale.is_disabled()
    page.wait_for_timeout(500)
    shot(page, "playground_end")


def test_both_widgets(page, serve, shot):
    errors = []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.set_viewport_size(dict(width=1280, height=1600))    # both widgets on one screen
    page.goto(serve(*PAGE))
    page.locator(".apse-rows img").wait_for()
    shown = Page(page)
    circle = drag_a_point(shown, shot)
    circle = move_points_by_keyboard(shown, circle)
    circle = refuse_a_value(shown, circle)
    choose_one_negative(shown, circle, shot)
    choose_losses(shown, shot)
    choose_an_anchor(shown)
    choose_scales(shown, shot)
    assert all(page.locator("img[alt]").evaluate_all("nodes => nodes.map(n => n.alt)")) and not errors, errors
