"""Whether a series of samples is flat, and how it looks.

    judge.py --self-test      leaks of known size are found, and what is flat is not taken for one
"""

import random
import statistics
import sys

WARM_UP_SHARE, WARM_UP_MIN_S = 0.25, 15
SAMPLES_MIN = 8


class Bound:
    """How far a value may move: `growth` in what is left after the warm-up, by the fitted line; `peak` above the median."""

    def __init__(self, field, unit, growth, growth_share, peak, peak_share):
        self.field, self.unit = field, unit
        self.growth, self.growth_share, self.peak, self.peak_share = growth, growth_share, peak, peak_share

    def judge(self, samples):
        """Problems, and one line that tells the figures. `samples` are (seconds, value) after the warm-up."""
        if len(samples) < SAMPLES_MIN:
            return [f"{self.field}: only {len(samples)} samples after the warm-up, {SAMPLES_MIN} are needed"], ""
        values = [value for _, value in samples]
        median, span = statistics.median(values), samples[-1][0] - samples[0][0]
        slope, error = fit(samples)
        growth, peak = slope * span, max(values) - median
        growth_max = max(self.growth, self.growth_share * median)
        peak_max = max(self.peak, self.peak_share * median)
        text = (f"{self.field}: median {median:.0f} {self.unit}, growth {growth:+.1f} ± {2 * error * span:.1f} in {span:.0f} s "
                f"(at most {growth_max:.0f}), peak {peak:+.0f} (at most {peak_max:.0f})")
        problems = []
        # A line through nothing but noise has a slope too.
        if growth > growth_max and growth > 2 * error * span:
            problems.append(f"not flat: {text}")
        if peak > peak_max:
            problems.append(f"too high at times: {text}")
        return problems, text


# Memory follows the number of transfers that are under way: that is its noise, and the reason for the bounds. One transfer
# reserves 1 MiB, so that a leak of one in a hundred transfers is above them within minutes.
BOUNDS = [
    Bound("rss_mib", "MiB", growth=16, growth_share=0.10, peak=64, peak_share=0.5),
    Bound("fds", "descriptors", growth=12, growth_share=0.10, peak=40, peak_share=0.6),
    Bound("threads", "threads", growth=12, growth_share=0.10, peak=24, peak_share=0.5),
    Bound("store_sockets", "sockets", growth=12, growth_share=0.10, peak=40, peak_share=0.8),
]


def fit(samples):
    """Least-squares slope per second, and its standard error."""
    count = len(samples)
    mean_x, mean_y = sum(x for x, _ in samples) / count, sum(y for _, y in samples) / count
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in samples)
    return slope, (rest / max(count - 2, 1) / spread) ** 0.5


def series(rows, field):
    """(seconds, value) of a field of the samples."""
    if field == "rss_mib":
        return [(row["time_s"], row["rss_kib"] / 1024) for row in rows]
    return [(row["time_s"], row[field]) for row in rows]


def judge(rows, load_s):
    """Problems and figures of all bounds, for samples that were taken under load."""
    warm_s = max(WARM_UP_MIN_S, WARM_UP_SHARE * load_s)
    warm = [row for row in rows if row["time_s"] >= warm_s]
    problems, figures = [], []
    for bound in BOUNDS:
        found, text = bound.judge(series(warm, bound.field))
        problems += found
        figures.append(text)
    return problems, figures


def plot(rows, path, title):
    """An SVG of memory, descriptors, threads and requests over time."""
    width, height, left = 900, 170, 70
    fields = [("rss_mib", "memory, MiB"), ("fds", "descriptors"), ("threads", "threads"), ("in_flight", "requests in flight")]
    end_s = max([row["time_s"] for row in rows] or [1])
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + left + 20}" height="{height * len(fields) + 40}" '
             f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
             f'<text x="{left}" y="20" font-size="14">{title}</text>']
    for index, (field, name) in enumerate(fields):
        points = series(rows, field)
        top, bottom = 40 + index * height, 40 + (index + 1) * height - 30
        high = max([value for _, value in points] or [1]) or 1
        line = " ".join(f"{left + x / end_s * width:.1f},{bottom - y / high * (bottom - top - 10):.1f}" for x, y in points)
        parts.append(f'<text x="{left}" y="{top}">{name}, up to {high:.0f}</text>'
                     f'<line x1="{left}" y1="{bottom}" x2="{left + width}" y2="{bottom}" stroke="#999"/>'
                     f'<text x="{left - 8}" y="{bottom}" text-anchor="end">0</text>'
                     f'<text x="{left + width}" y="{bottom + 14}" text-anchor="end">{end_s:.0f} s</text>'
                     f'<polyline points="{line}" fill="none" stroke="#1060a0" stroke-width="1.3"/>')
    path.write_text("\n".join(parts) + "\n</svg>\n")


def self_test():
    noise = random.Random(7)

    def rows(load_s, leak_kib_s=0.0, leak_fds_s=0.0, spike_kib=0):
        made = []
        for second in range(0, load_s, 2):
            made.append({
                "time_s": second, "rss_kib": 60_000 + 20_000 * min(1, second / 15) + noise.gauss(0, 4000) + leak_kib_s * second
                + (spike_kib if second == load_s - 10 else 0),
                "fds": 60 + noise.randrange(-10, 10) + leak_fds_s * second, "threads": 12, "store_sockets": 20 + noise.randrange(8),
            })
        return made

    for load_s in [60, 3600]:
        assert not judge(rows(load_s), load_s)[0], judge(rows(load_s), load_s)
        for name, leak in [("rss_mib", {"leak_kib_s": 40_000 / load_s * 2}), ("fds", {"leak_fds_s": 60 / load_s}),
                           ("rss_mib", {"spike_kib": 90_000})]:
            problems = judge(rows(load_s, **leak), load_s)[0]
            assert problems and all(name in problem for problem in problems), (load_s, leak, problems)
    assert judge(rows(20), 20)[0], "too few samples are a problem and not a proof"
    print("judge: self-test passed")


if __name__ == "__main__":
    if sys.argv[1:] != ["--self-test"]:
        sys.exit(__doc__)
    self_test()
