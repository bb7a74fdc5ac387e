"""The shapes of published scientific workflows, of any size: which job needs which others.

Written from their published descriptions. Every shape takes one number, how many of what there are
many of, and gives the jobs by name with what they need, in an order in which they can run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

Needs = dict[str, list[str]]


def montage(images: int) -> Needs:
    """A mosaic of the sky: overlapping pairs are compared, then all are corrected and added."""
    needs: Needs = {f"project_{n}": [] for n in range(images)}
    for first in range(images):
        for step in (1, 2, 7):  # its neighbours in the row, and in the row below
            if first + step < images:
                pair = [f"project_{first}", f"project_{first + step}"]
                needs[f"diff_{first}_{first + step}"] = pair
    needs["concat_fit"] = [name for name in needs if name.startswith("diff_")]
    needs["bg_model"] = ["concat_fit"]
    for n in range(images):
        needs[f"background_{n}"] = ["bg_model", f"project_{n}"]
    backgrounds = [f"background_{n}" for n in range(images)]
    needs["image_table"] = backgrounds
    needs["add"] = ["image_table", *backgrounds]
    needs["shrink"] = ["add"]
    needs["jpeg"] = ["shrink"]
    return needs


def cyber_shake(ruptures: int) -> Needs:
    """Earthquake hazards: seismograms of many ruptures, and their peaks, in two archives."""
    needs: Needs = {f"extract_{n}": [] for n in range(max(1, ruptures // 20))}
    extracts = list(needs)
    for n in range(ruptures):
        needs[f"synthesis_{n}"] = [extracts[n % len(extracts)]]
        needs[f"peak_{n}"] = [f"synthesis_{n}"]
    needs["zip_seismograms"] = [f"synthesis_{n}" for n in range(ruptures)]
    needs["zip_peaks"] = [f"peak_{n}" for n in range(ruptures)]
    return needs


def epigenomics(chunks: int, lanes: int = 3) -> Needs:
    """Sequences of several lanes: split, chains of four steps for each chunk, merged twice."""
    needs: Needs = {}
    for lane in range(lanes):
        needs[f"split_{lane}"] = []
        for n in range(chunks // lanes + 1):
            before = f"split_{lane}"
            for step in ("filter", "to_sanger", "to_bfq", "map"):
                needs[f"{step}_{lane}_{n}"] = [before]
                before = f"{step}_{lane}_{n}"
        needs[f"merge_{lane}"] = [name for name in needs if name.startswith(f"map_{lane}_")]
    needs["merge"] = [f"merge_{lane}" for lane in range(lanes)]
    needs["index"] = ["merge"]
    needs["pileup"] = ["index"]
    return needs


def inspiral(templates: int, size: int = 5) -> Needs:
    """Gravitational waves: two rounds of matching in groups, each closed by a coincidence test."""
    needs: Needs = {}
    for n in range(templates):
        needs[f"bank_{n}"] = []
        needs[f"inspiral_{n}"] = [f"bank_{n}"]
    groups = [range(n, min(n + size, templates)) for n in range(0, templates, size)]
    for g, group in enumerate(groups):
        needs[f"thinca_{g}"] = [f"inspiral_{n}" for n in group]
        for n in group:
            needs[f"trigger_bank_{n}"] = [f"thinca_{g}"]
            needs[f"inspiral_again_{n}"] = [f"trigger_bank_{n}"]
        needs[f"thinca_again_{g}"] = [f"inspiral_again_{n}" for n in group]
    return needs


def sipht(replicons: int, motifs: int = 17) -> Needs:
    """Small RNAs of bacteria: independent searches for each replicon, joined by an annotation."""
    needs: Needs = {}
    for r in range(replicons):
        for n in range(motifs):
            needs[f"patser_{r}_{n}"] = []
        needs[f"patser_all_{r}"] = [f"patser_{r}_{n}" for n in range(motifs)]
        searches = [f"{kind}_{r}" for kind in ("transterm", "findterm", "rna_motif", "blast")]
        needs |= {name: [] for name in searches}
        needs[f"srna_{r}"] = searches
        needs[f"ffn_parse_{r}"] = [f"srna_{r}"]
        blasts = [f"blast_{kind}_{r}" for kind in ("candidates", "qrna", "paralogues")]
        needs |= {name: [f"srna_{r}"] for name in blasts}
        needs[f"blast_synteny_{r}"] = [f"ffn_parse_{r}", f"srna_{r}"]
        joined = [f"patser_all_{r}", f"ffn_parse_{r}", f"blast_synteny_{r}", *blasts]
        needs[f"annotate_{r}"] = joined
    return needs


def genomes(chunks: int, chromosomes: int = 2) -> Needs:
    """Mutations of populations: merged for each chromosome, then looked at for each population."""
    needs: Needs = {}
    for c in range(chromosomes):
        parts = [f"individuals_{c}_{n}" for n in range(chunks // chromosomes + 1)]
        needs |= {name: [] for name in parts}
        needs[f"merge_{c}"] = parts
        needs[f"sifting_{c}"] = []
        for kind, people in product(("overlap", "frequency"), range(7)):
            needs[f"{kind}_{c}_{people}"] = [f"merge_{c}", f"sifting_{c}"]
    return needs


def blast(parts: int) -> Needs:
    """Sequences against a database: split, searched in parallel, put together twice."""
    searches = [f"blastall_{n}" for n in range(parts)]
    return {
        "split": [],
        **{name: ["split"] for name in searches},
        "cat_blast": searches,
        "cat": searches,
    }


def seismology(stations: int) -> Needs:
    """Many deconvolutions, and one job that sifts them all."""
    needs: Needs = {f"deconvolve_{n}": [] for n in range(stations)}
    return {**needs, "sift": list(needs)}


SHAPES: dict[str, Callable[[int], Needs]] = {
    each.__name__: each
    for each in (
        montage,
        cyber_shake,
        epigenomics,
        inspiral,
        sipht,
        genomes,
        blast,
        seismology,
    )
}


def of_size(shape: str, jobs: int) -> Needs:
    """Return the smallest workflow of a shape that has at least so many jobs."""
    number = 1
    while len(needs := SHAPES[shape](number)) < jobs:
        number += max(1, number * (jobs - len(needs)) // (2 * len(needs)))
    return needs


def write(needs: Needs) -> str:
    """Return a workflow as flowq has it: each edge written in one of the ways there are."""
    blocks: dict[str, list[str]] = {}
    lines = ["name: shape", "jobs:"]
    rows = {name: list(_job(name, before, blocks)) for name, before in needs.items()}
    for name in needs:
        lines += [f"  {name}:", *rows[name]]
        if name in blocks:
            lines.append(f"    blocks: [{', '.join(blocks[name])}]")
    return "\n".join([*lines, ""])


def _job(name: str, before: list[str], blocks: dict[str, list[str]]) -> Iterator[str]:
    needed = before[::3]
    for other in before[1::3]:
        blocks.setdefault(other, []).append(name)
    yield "    call: builtins:dict"
    if needed:
        yield f"    needs: [{', '.join(needed)}]"
    if before[2::3]:
        yield "    with:"
        yield from (f"      {other}: ${{{{ jobs.{other}.result }}}}" for other in before[2::3])
