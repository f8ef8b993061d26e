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


def test_both_widgets(page, serve, shot):
    errors = []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.set_viewport_size(dict(width=1280, height=1600))    # both widgets on one screen
    page.goto(serve(*PAGE))
    page.locator(".apse-rows img").wait_for()
    point = {role: page.locator(".apse-circle [role=slider]").nth(i) for i, role in enumerate(ROLES)}
    lines, pictures = page.locator("p[role=status], p[role=alert]"), page.locator("img[alt]")
    def source(alt):
        return page.locator(f"img[alt^='{alt}']").get_attribute("src")
    def shown(role):
        return point[role].get_attribute("aria-valuetext")
    def drawn():
        return page.locator(".apse-circle .generated").evaluate_all("nodes => nodes.map(n => n.getAttribute('d'))")

    def agrees(circle: Circle):
        "The page shows what Python computes for this circle: texts of the points, losses, the turning point."
        reading = circle_values(circle)
        until(lambda: [shown(role) for role in ROLES] == point_texts(circle, reading),
              f"points say {[shown(r) for r in ROLES]}, not {point_texts(circle, reading)}")
        until(lambda: lines.nth(1).inner_text() == losses_sentence(reading),
              f"the losses read {lines.nth(1).inner_text()!r}, not {losses_sentence(reading)!r}")
        until(lambda: (page.locator("img[alt^='Bars']").get_attribute("alt")
                       or "").endswith(f"{losses_sentence(reading)} "
                                       f"{strip_sentence(circle, positive_strip(circle))}"),
              "the bars show another state")
        until(lambda: lines.nth(2).inner_text() == strip_sentence(circle, positive_strip(circle)),
              f"the forces read {lines.nth(2).inner_text()!r}")

    circle = Circle()
    agrees(circle)
    shot(page, "geometry_start")

    # by mouse: from 110° to 150°
    bars, diamonds = source("Bars"), drawn()
    box = page.locator(".apse-circle").bounding_box()
    page.mouse.move(*on_circle(box, 110))
    page.mouse.down()
    page.mouse.move(*on_circle(box, 130), steps=4)
    page.mouse.move(*on_circle(box, 150), steps=4)
    page.mouse.up()
    until(lambda: point["positive"].get_attribute("aria-valuenow") == "150",
          f"dragged to {point['positive'].get_attribute('aria-valuenow')}")
    circle = replace(circle, positive=150)
    agrees(circle)
    until(lambda: source("Bars") != bars, "the bars did not change")
    assert drawn() != diamonds
    shot(page, "geometry_dragged")

    # by keyboard: the drag left the focus on the positive; Tab goes on to the next point
    for key in ("ArrowRight", "ArrowRight", "PageDown", "Shift+ArrowRight"):
        page.keyboard.press(key)
    circle = replace(circle, positive=150 - 1 - 1 - 10 - 10)
    agrees(circle)
    page.keyboard.press("Tab")
    assert (
        page.evaluate("document.activeElement.getAttribute('aria-label')")
        == "negative of the same polarity (excitement)"
    )
    page.keyboard.press("Home")
    circle = replace(circle, same=0)
    agrees(circle)

    # a refused value is said, and nothing changes
    def type_into(label: str, value: str):
        field = page.get_by_role("spinbutton", name=label).first
        field.fill(value)
        field.press("Enter")

    type_into("anchor as excitement", "0.95")
    until(lambda: lines.nth(2).get_attribute("role") == "alert", "confidences above 1 were not refused")
    assert "cannot add up to more than 1" in lines.nth(2).inner_text()
    type_into("anchor as excitement", "0.6")
    circle = replace(circle, anchor_confidences=(.6, .125))
    agrees(circle)

    # one negative, lambda_0 by hand
    page.get_by_label("opposite negative too").click()
    circle = replace(circle, negatives=1)
    agrees(circle)
    assert point["opposite"].is_hidden() and len(drawn()) == 1
    page.locator(".widget-dropdown", has_text="hardness").locator("select").select_option("λ₀ by hand")
    until(lambda: "never turns round" in page.locator("img[alt^='Bars']").get_attribute("alt"),
          "a constant lambda_0 has no turning point")
    page.wait_for_timeout(300)
    shot(page, "geometry_keyboard")

    # the playground
    def touches(kind: str, loss: str, scale: float):
        until(lambda: lines.nth(4).inner_text() == loss_sentence(kind, loss, scale),
              f"the playground reads {lines.nth(4).inner_text()!r}, not {loss_sentence(kind, loss, scale)!r}")
        until(lambda: (page.locator("img[alt^='Heat maps']").get_attribute("alt")
                       or "").endswith(loss_sentence(kind, loss, scale)), "the heat maps show another state")
        count = sum(
            c["touched"] for c in pair_counts(loss_on_batch(kind, loss, scale), make_batch(kind).labels).values()
        )
        assert int(re.search(r"touches (\d+) of 992", lines.nth(4).inner_text())[1]) == count
        return count

    def choose(label, option):
        return page.locator(".widget-dropdown",
                                                    has_text=label).last.locator("select").select_option(option)
    assert touches("trained", "EP", 1.) == 768
    sheet = source("Heat maps")
    page.wait_for_timeout(500)
    shot(page, "playground_start")
    choose("loss", "EP, intra only")
    assert touches("trained", "EP, intra only", 1.) == 384
    sheet = until(lambda: source("Heat maps") != sheet and source("Heat maps"), "the heat maps did not change")
    choose("loss", "GEP")
    choose("batch", "random directions")
    assert touches("random", "GEP", 1.) == 768
    sheet = until(lambda: source("Heat maps") != sheet and source("Heat maps"), "the heat maps did not change")

    # choose an anchor: click row 20 of the left map, then two rows down and a class up with the keys
    rows, row_picture = page.get_by_role("slider", name="anchor row"), source("The cosines")
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
    until(lambda: source("The cosines") != row_picture, "the anchor's picture did not change")
    choose("batch", "scenes, trained network")
    choose("loss", "N-pair")
    page.get_by_role("spinbutton", name="scale").last.fill("8")
    page.keyboard.press("Enter")
    assert touches("trained", "N-pair", 8.) == 768
    page.wait_for_timeout(500)
    shot(page, "playground_scale8")
    choose("loss", "contrastive")
    assert touches("trained", "contrastive", 8.) == 376
    assert page.get_by_role("spinbutton", name="scale").last.is_disabled()
    page.wait_for_timeout(500)
    shot(page, "playground_end")
    assert all(alt for alt in pictures.evaluate_all("nodes => nodes.map(n => n.alt)")) and not errors, errors
