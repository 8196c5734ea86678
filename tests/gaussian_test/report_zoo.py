"""Pages that the tests of the report look at, and a reader of HTML."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import torch
from face_zoo import QUICK, Own
from PIL import Image

import gaussian_test as gt

HOSTILE = "<img src=x onerror=alert(1)>"
NASTY = 'a $x_1$ & "b" {{ 7*7 }} \'<!-- -->'
VOID = {"meta", "link", "img", "input", "br", "hr"}


def hostile_run(output):
    """Run something in which everything that has a name has a hostile one, but for an observable of ours."""

    def kept_ink(start, end):
        return (end.flatten(1).mean(1) - start.flatten(1).mean(1)).abs()

    settings = QUICK | {"samples": 12, "keep": {"pictures": 3}, "observables": ["quality"], "reverse": {"steps": 4}}
    settings |= {"scores": [{"kind": "empirical", "name": HOSTILE}, {"kind": "gaussian", "name": NASTY}]}
    settings |= {"turn_times": {"noise_to_signal": [0.1, 0.7, 2.0, 8.0]}}
    truth = gt.data.load("digits").assign_attrs(source="file", title=f"{HOSTILE}.npz")
    given = {"scores": {"_mine; a: b": Own(lambda x, t: x / 2)}, "custom_observables": {"kept_ink": kept_ink}}
    return gt.run(settings, output, truth=truth, progress=False, **given)


class Element:
    """An element of a page, with its attributes, its text and what is in it."""

    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent = tag, dict(attributes), parent
        self.children, self.text = [], ""

    def all(self, *tags):
        """Yield all elements of some tags within, in order; of all tags if none is given."""
        for child in self.children:
            if not tags or child.tag in tags:
                yield child
            yield from child.all(*tags)

    def said(self):
        """Return all text within, blanks folded."""
        return " ".join(" ".join([self.text, *(child.said() for child in self.children)]).split())

    def within(self, tag):
        """Return the nearest element of a tag around this one, or None."""
        above = self.parent
        while above is not None and above.tag != tag:
            above = above.parent
        return above


class Page(HTMLParser):
    """A page of HTML as a tree; refuses one whose elements do not close."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.root = Element("", {}, None)
        self._at = self.root
        self.feed(text)
        self.close()
        assert self._at is self.root, f"<{self._at.tag}> is not closed"

    def handle_starttag(self, tag, attrs):
        element = Element(tag, attrs, self._at)
        self._at.children.append(element)
        if tag not in VOID:
            self._at = element

    def handle_startendtag(self, tag, attrs):
        self._at.children.append(Element(tag, attrs, self._at))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._at.tag == tag, f"</{tag}> closes <{self._at.tag}>"
            self._at = self._at.parent

    def handle_data(self, data):
        self._at.text += data


def table_rows(page, title):
    """Return the rows of the table with a title, each the texts of its cells."""
    (table,) = (table for table in page.root.all("table") if any(c.said().startswith(title) for c in table.all("caption")))
    return [[cell.said() for cell in row.all("th", "td")] for row in table.all("tr")]


def pixels(uri):
    """Return the picture of a data URI, (row, column, 4), 0 to 255."""
    head, data = uri.split(",", 1)
    assert head.startswith("data:image/")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))


def strip_pictures(uri, count):
    """Return the pictures of a strip, (count, row, column, 3), without what is clear between them."""
    image = pixels(uri)
    opaque = image[0, :, 3] == 255
    edges = np.flatnonzero(np.diff(np.concatenate([[0], opaque.astype(int), [0]])))
    parts = [image[:, left:right, :3] for left, right in zip(edges[::2], edges[1::2], strict=True)]
    assert len(parts) == count
    return np.stack(parts)


def noise_pictures(channels, side, samples, seed=0):
    """Return truth of pure noise, which no compression makes small."""
    x = torch.rand(samples, channels, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    truth = gt.data.load("digits").isel(sample=slice(samples))
    return truth.drop_vars("x").assign(x=(("sample", "channel", "row", "column"), x.numpy())).assign_attrs(source="noise")
