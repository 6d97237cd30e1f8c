"""Plots of the benchmarks: bars and lines with whiskers, as SVG, with nothing but the standard library.

    panels = [Bars("MB/s", {"Anchorage": [470, 480, 490], "aria2": [270, 275, 280]})]
    write(path, "One source, one getter", ["1 GiB on loopback"], panels, parameters)

A panel gets all values of every run and shows their median, with a whisker from the least to the most.
"""

import html
import math
import statistics

WIDTH, MARGIN, GAP = 880, 24, 26
FONT = "font-family=\"Helvetica, Arial, 'Liberation Sans', sans-serif\""
INK, GREY, FAINT = "#1b1f24", "#57606a", "#d8dee4"
# Okabe and Ito's, which all eyes can tell apart; the first is Anchorage's.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7a5c00", "#000000"]


def ours(label):
    """Whether a series is of Anchorage itself."""
    return label.startswith(("Anchorage", "peer "))


def colours(labels):
    """A colour for each label: Anchorage's own for its first."""
    others = iter(COLOURS[1:] * (1 + len(labels) // (len(COLOURS) - 1)))
    taken, found = False, {}
    for label in labels:
        if ours(label) and not taken:
            taken, found[label] = True, COLOURS[0]
        else:
            found[label] = next(others)
    return found


def number(value):
    """A number with three digits, the zeros at its end left out."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    written = f"{value:.{digits}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written


def ticks(least, most, wanted=5):
    """Round numbers from `least` to a little over `most`."""
    step = 10 ** math.floor(math.log10(max(most - least, 1e-9) / wanted))
    step *= next(factor for factor in (1, 2, 5, 10) if (most - least) / (step * factor) <= wanted)
    first, last = math.floor(least / step), math.ceil(most / step - 1e-9)
    return [round(at * step, 10) for at in range(first, last + 1)]


def text(x, y, words, size=13, anchor="start", colour=INK, weight="normal"):
    """A line of text."""
    halo = 'paint-order="stroke" stroke="#ffffff" stroke-width="3"'
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" '
            f'font-weight="{weight}" {halo}>{html.escape(str(words))}</text>')


def line(x1, y1, x2, y2, colour=INK, width=1.0, dash=""):
    """A straight line."""
    dash = f' stroke-dasharray="{dash}"' if dash else ""
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width}"{dash}/>')


class Bars:
    """A horizontal bar for each label; `mark` draws a line at a value that matters, say a target."""

    def __init__(self, title, values, mark=None, mark_name=None):
        self.title, self.mark, self.mark_name = title, mark, mark_name
        self.values = {label: of for label, of in values.items() if of}

    def height(self):
        """Pixels that it takes."""
        return 22 + 24 * len(self.values) + 34 + (16 if self.mark_name else 0)

    def draw(self, top):
        """Its SVG, from `top` down."""
        left = MARGIN + 8 + min(330, 7.1 * max(map(len, self.values)))
        right = WIDTH - MARGIN - 70
        scale = ticks(0, max([self.mark or 0, *(max(of) for of in self.values.values())]))
        def at(value):
            return left + (right - left) * value / scale[-1]
        bottom = top + 22 + 24 * len(self.values)
        # Where there is nobody to tell it from, all is Anchorage's.
        has_rivals = any(map(ours, self.values)) and not all(map(ours, self.values))
        out = [text(MARGIN, top + 10, self.title, 14, weight="bold")]
        for tick in scale:
            out += [line(at(tick), top + 20, at(tick), bottom, FAINT),
                    text(at(tick), bottom + 15, number(tick), 11, "middle", GREY)]
        for place, (label, of) in enumerate(self.values.items()):
            y = top + 24 + 24 * place
            middle, least, most = statistics.median(of), min(of), max(of)
            colour = COLOURS[0] if ours(label) or not has_rivals else "#a9b4be"
            weight = "bold" if ours(label) and has_rivals else "normal"
            out += [text(left - 8, y + 13, label, 12, "end", weight=weight),
                    f'<rect x="{left:.1f}" y="{y}" width="{at(middle) - left:.1f}" height="17" fill="{colour}"/>',
                    text(at(most) + 8, y + 13, number(middle), 12)]
            if most > least:
                out += [line(at(least), y + 8.5, at(most), y + 8.5, INK, 1.4)]
                out += [line(at(end), y + 4.5, at(end), y + 12.5, INK, 1.4) for end in (least, most)]
        if self.mark is not None:
            out.append(line(at(self.mark), top + 18, at(self.mark), bottom, "#b3261e", 1.4, "5 3"))
        if self.mark_name:
            out.append(text(at(self.mark), bottom + 30, self.mark_name, 11, "middle", "#b3261e"))
        return out


class Lines:
    """A line for each label over a few positions: `values` is {label: {x: [every run]}}; the x stand side by side.

    `bounds` names the lines that are bounds of others, {bound: other}: dashed, and in the other's colour."""

    def __init__(self, title, x_name, values, least=0.0, bounds=None):
        self.title, self.x_name, self.least, self.bounds = title, x_name, least, bounds or {}
        self.values = {label: {x: of for x, of in line.items() if of} for label, line in values.items()}
        self.values = {label: line for label, line in self.values.items() if line}

    def height(self):
        """Pixels that it takes."""
        return 320

    def draw(self, top):
        """Its SVG, from `top` down."""
        left, right, bottom = MARGIN + 40, WIDTH - 250, top + 270
        xs = sorted({x for one in self.values.values() for x in one})
        most = max(max(of) for one in self.values.values() for of in one.values())
        scale = ticks(self.least, max(most, self.least * 1.1), 6)
        def across(x):
            return left + 30 + (right - left - 60) * xs.index(x) / max(1, len(xs) - 1)
        def up(value):
            return bottom - (bottom - top - 24) * (value - scale[0]) / (scale[-1] - scale[0])
        out = [text(MARGIN, top + 10, self.title, 14, weight="bold")]
        for tick in scale:
            out += [line(left, up(tick), right, up(tick), FAINT),
                    text(left - 8, up(tick) + 4, number(tick), 11, "end", GREY)]
        for x in xs:
            out += [line(across(x), bottom, across(x), bottom + 5, GREY),
                    text(across(x), bottom + 19, f"{x:,}", 11, "middle", GREY)]
        out += [line(left, bottom, right, bottom, GREY),
                text((left + right) / 2, bottom + 37, self.x_name, 12, "middle")]
        hues = colours([label for label in self.values if label not in self.bounds])
        hues |= {label: hues[other] for label, other in self.bounds.items()}
        ends = []
        for label, one in self.values.items():
            points = [(across(x), up(statistics.median(of))) for x, of in sorted(one.items())]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            dash = ' stroke-dasharray="6 4"' if label in self.bounds else ""
            width = 3 if ours(label) else 1.8
            out.append(f'<polyline points="{path}" fill="none" stroke="{hues[label]}" stroke-width="{width}"{dash}/>')
            for x, of in () if label in self.bounds else one.items():
                out.append(f'<circle cx="{across(x):.1f}" cy="{up(statistics.median(of)):.1f}" r="3.6" '
                           f'fill="{hues[label]}"/>')
                if max(of) > min(of):
                    out.append(line(across(x), up(min(of)), across(x), up(max(of)), hues[label], 1.4))
                    out += [line(across(x) - 4, up(end), across(x) + 4, up(end), hues[label], 1.4)
                            for end in (min(of), max(of))]
            ends.append((points[-1][1], label, statistics.median(one[max(one)])))
        return out + self.legend(ends, hues, right, top)

    def legend(self, ends, hues, right, top):
        """The labels, in the order in which the lines end, beside their ends if there is room."""
        out, y = [], top + 20
        height = 17
        ends.sort()
        for place, (end, label, value) in enumerate(ends):
            room_below = top + 276 - height * (len(ends) - place)
            y = min(max(y, end - 4), room_below)
            dash = "6 4" if label in self.bounds else ""
            weight = "bold" if ours(label) else "normal"
            out += [line(right + 10, y, right + 32, y, hues[label], 3, dash),
                    text(right + 38, y + 4, f"{label}  {number(value)}", 12, weight=weight)]
            y += height
        return out


def write(path, title, notes, panels, named):
    """Writes panels below each other, with a title, notes, and where and when this was measured."""
    foot = f"{named['date']} · Anchorage {named['revision']} · {named['machine']}, Linux {named['kernel']}"
    y = 38
    body = [text(MARGIN, y, title, 19, weight="bold")]
    for note in notes:
        y += 19
        body.append(text(MARGIN, y, note, 12, colour=GREY))
    y += GAP
    for panel in panels:
        body += panel.draw(y)
        y += panel.height() + GAP
    body.append(text(MARGIN, y, foot, 11, colour=GREY))
    height = y + 16
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" {FONT}>',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>', *body, "</svg>"]) + "\n", encoding="utf-8")
