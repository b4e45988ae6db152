# SPDX-License-Identifier: Apache-2.0
"""Medians, ratios and tables of what bench/run measured."""

import csv
import statistics

BEGIN, END = "<!-- figures: bench/run writes below -->", "<!-- figures end -->"
OPERATIONS = (("fork", "`fork()`, the yardstick"), ("capture", "capture, first"),
              ("capture_again", "capture again, unmodified"), ("install", "install by `read(2)`"),
              ("tmpfs_write", "`write(2)` into tmpfs"), ("tmpfs_read", "`read(2)` from tmpfs"))


def median(values):
    return statistics.median(values)


def mm_rows(result):
    """(MiB, operation, ns per page, ratio to fork)."""
    for size in result["mm"]:
        times = {name: median(values) for name, values in size["ns_per_page"].items()}
        for name, _ in OPERATIONS:
            yield size["mib"], name, times[name], times[name] / times["fork"]


def criu_medians(result):
    """{MiB: {(step, figure): median}}."""
    medians = {}
    for size in result["criu"]:
        first = size["rounds"][0]
        medians[size["mib"]] = {
            (step, figure): median([r[step][figure] for r in size["rounds"]])
            for step in first for figure in first[step]}
    return medians


def criu_rows(result):
    """One dictionary a size: ours, stock and their ratios, in microseconds. The page phase
    of a restore is one system call, read, which bench_mm times by itself."""
    medians = criu_medians(result)
    reads = {(mib, name): ns * mib * 256 / 1000 for mib, name, ns, _ in mm_rows(result)}
    for mib, m in medians.items():
        if mib == 1:
            continue
        row = {"mib": mib}
        pairs = {
            "dump_pages": (m["first_dump", "memdump_us"], m["stock_dump", "memdump_us"]),
            "dump_pages_again": (m["again_dump", "memdump_us"], m["stock_dump", "memdump_us"]),
            "frozen": (m["first_dump", "frozen_us"], m["stock_dump", "frozen_us"]),
            "frozen_again": (m["again_dump", "frozen_us"], m["stock_dump", "frozen_us"]),
            "restore_pages": (reads[mib, "install"], reads[mib, "tmpfs_read"]),
            "restore": (m["restore", "restore_us"], m["stock_restore", "restore_us"]),
            "dump_wall": (m["first_dump", "wall_us"], m["stock_dump", "wall_us"]),
            "restore_wall": (m["restore", "wall_us"], m["stock_restore", "wall_us"]),
        }
        if ("spliced_dump", "wall_us") in m:
            pairs |= {
                "spliced_pages": (m["spliced_dump", "memdump_us"], m["stock_dump", "memdump_us"]),
                "spliced_pages_again": (m["spliced_again_dump", "memdump_us"], m["stock_dump", "memdump_us"]),
                "spliced_write": (m["spliced_dump", "memwrite_us"], m["stock_dump", "memwrite_us"]),
                "spliced_frozen": (m["spliced_dump", "frozen_us"], m["stock_dump", "frozen_us"]),
                "spliced_frozen_again": (m["spliced_again_dump", "frozen_us"], m["stock_dump", "frozen_us"]),
                "spliced_restore": (m["spliced_restore", "restore_us"], m["stock_restore", "restore_us"]),
            }
        for name, (ours, stock) in pairs.items():
            row[name] = ours
            row[f"{name}_stock"] = stock
            row[f"{name}_ratio"] = ours / stock if stock > 0 else float("nan")
        taken = m["first_dump", "by_reference"] + m["first_dump", "shared"]
        row["by_reference"] = taken / max(1, taken + m["first_dump", "copied"])
        yield row


def write_csv(result, path):
    with open(path, "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["what", "mib", "figure", "value", "unit"])
        for mib, name, ns, ratio in mm_rows(result):
            out.writerow(["mm", mib, name, f"{ns:.1f}", "ns/page"])
            out.writerow(["mm", mib, f"{name}/fork", f"{ratio:.3f}", "ratio"])
        for row in criu_rows(result):
            for key, value in row.items():
                if key != "mib":
                    unit = "ratio" if key.endswith("ratio") or key == "by_reference" else "us"
                    out.writerow(["criu", row["mib"], key, f"{value:.4f}" if unit == "ratio" else f"{value:.0f}",
                                  unit])


FIGURES = (("dump_pages", "page phase of the dump, all pages new"),
           ("dump_pages_again", "page phase of the dump, all pages shared"),
           ("frozen", "frozen, all pages new"), ("frozen_again", "frozen, all pages shared"),
           ("restore_pages", "page phase of the restore"), ("restore", "restore, CRIU's own time"),
           ("dump_wall", "whole dump command"), ("restore_wall", "whole restore command"))
SPLICED = (("spliced_pages", "page phase of the dump, all pages new"),
           ("spliced_write", "of it, splice into the file"),
           ("spliced_pages_again", "page phase of the dump, all pages shared"),
           ("spliced_frozen", "frozen, all pages new"), ("spliced_frozen_again", "frozen, all pages shared"),
           ("spliced_restore", "restore, CRIU's own time"))


def figure_rows(result, figures):
    rows = list(criu_rows(result))
    for key, title in figures:
        cells = [f"{row[key] / 1000:.1f} against {row[key + '_stock'] / 1000:.1f} ({row[key + '_ratio']:.3f})"
                 for row in rows]
        yield f"| {title} | " + " | ".join(cells) + " |"


def figure_head(result):
    return ["| Figure | " + " | ".join(f"{row['mib']} MiB" for row in criu_rows(result)) + " |",
            "|---|" + "---:|" * len(result["mm"])]


def tables(result):
    sizes = [size["mib"] for size in result["mm"]]
    lines = [f"Measured {result['date']} on Linux {result['kernel']}, {result['cpus']} CPUs "
             f"({result['hypervisor'].upper()}, `{result['cpu']}`); medians of "
             f"{len(result['criu'][0]['rounds'])} rounds or more.", "",
             "Nanoseconds per 4 KiB page, and the ratio to `fork()` of the same process:", "",
             "| Operation | " + " | ".join(f"{mib} MiB" for mib in sizes) + " |",
             "|---|" + "---:|" * len(sizes)]
    rows = {(mib, name): (ns, ratio) for mib, name, ns, ratio in mm_rows(result)}
    for name, title in OPERATIONS:
        cells = [f"{rows[mib, name][0]:.0f} ({rows[mib, name][1]:.2f} ×)" for mib in sizes]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += ["", "CRIU, by reference into the pool against stock CRIU into tmpfs, on the same boot, in "
              "milliseconds (ratio):", "", *figure_head(result), *figure_rows(result, FIGURES)]
    cells = [f"{row['by_reference']:.3%}" for row in criu_rows(result)]
    lines.append("| pages taken without a copy | " + " | ".join(cells) + " |")
    if all("spliced_pages" in row for row in criu_rows(result)):
        lines += ["", "Stock CRIU without plugin, images on kmemfs (by `splice(2)`) against images on tmpfs:",
                  "", *figure_head(result), *figure_rows(result, SPLICED)]
    return "\n".join(lines)


def write(result, csv_path, document):
    write_csv(result, csv_path)
    text = document.read_text()
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    document.write_text(f"{head}{BEGIN}\n\n{tables(result)}\n\n{END}{tail}")
