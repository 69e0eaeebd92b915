//! What came of a bisection, for people, as markdown, and for git. Computes nothing but what a plain bisection would have cost.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;

use super::live::drawn;
use super::session::{Counts, Ended};
use crate::bisect::history::{About, Line};
use crate::bisect::{Culprit, Doubt, Finding, Outcome};
use crate::compare::{Judgement, percent};
use crate::report::comparison::{change, word};
use crate::stats::step::{Posterior, plain_measurements};
use crate::unit::Unit;

/// All that is known.
pub(super) struct Knowledge<'a> {
    pub(super) line: &'a Line,
    pub(super) ended: &'a Ended,
    pub(super) counts: Counts,
    /// Why each commit that cannot be measured cannot.
    pub(super) troubles: &'a BTreeMap<usize, String>,
    pub(super) order_is_posterior: bool,
}

/// What there is to tell.
pub(super) struct Report {
    parts: Vec<Part>,
    /// As `git bisect log` prints it.
    git: String,
}

/// A heading and facts under it.
struct Part {
    heading: String,
    facts: Vec<(&'static str, String)>,
    /// The probability over the line.
    drawn: Option<(RangeInclusive<usize>, Posterior)>,
}

impl Report {
    pub(super) fn new(known: &Knowledge<'_>) -> Report {
        let mut parts = Vec::new();
        for one in &known.ended.all {
            for finding in &one.findings {
                parts.push(known.finding(&one.unit, finding));
            }
            if let Some((range, posterior)) = &one.open {
                let why = match known.ended.stopped {
                    Some(signal) => format!("stopped by {signal}"),
                    None => "time is up".to_owned(),
                };
                let mut part = Part {
                    heading: format!("{}: not decided yet: {why}", one.unit),
                    facts: known.state(posterior),
                    drawn: Some((range.clone(), posterior.clone())),
                };
                part.facts.insert(0, ("range", known.ends(range)));
                parts.push(part);
            }
        }
        parts.push(known.cost());
        Report {
            parts,
            git: known.git_log(),
        }
    }

    /// Puts what was found on the line that a merge brought in behind this.
    pub(super) fn descend(&mut self, merge: &About, below: Report) {
        for mut part in below.parts {
            part.heading = format!("within the merge {}: {}", merge.short(), part.heading);
            self.parts.push(part);
        }
        let _ = writeln!(self.git, "# within the merge {}:", merge.id);
        for line in below.git.lines() {
            let _ = writeln!(self.git, "# {line}");
        }
    }

    /// For people.
    pub(super) fn text(&self, width: usize) -> String {
        let mut text = String::new();
        for part in &self.parts {
            let _ = writeln!(text, "{}", part.heading);
            if let Some((range, posterior)) = &part.drawn {
                let _ = writeln!(text, "  {}", drawn(range, posterior, width.min(100) - 4));
            }
            for (key, value) in &part.facts {
                let _ = writeln!(text, "  {key:<13} {value}");
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    }

    /// As markdown.
    pub(super) fn markdown(&self) -> String {
        let mut text = "# Bisection\n".to_owned();
        let plain = |value: &str| {
            let escape = |c: char| match c {
                '|' | '<' | '*' | '_' | '`' | '[' => format!("\\{c}"),
                '\n' => "<br>".to_owned(),
                c => c.to_string(),
            };
            value.chars().map(escape).collect::<String>()
        };
        for part in &self.parts {
            let _ = writeln!(text, "\n## {}\n\n| | |\n|---|---|", plain(&part.heading));
            for (key, value) in &part.facts {
                let _ = writeln!(text, "| {key} | {} |", plain(value));
            }
            if let Some((range, posterior)) = &part.drawn {
                let _ = writeln!(text, "\n```\n{}\n```", drawn(range, posterior, 80));
            }
        }
        text
    }

    /// What `git bisect replay` understands.
    pub(super) fn git_log(&self) -> String {
        self.git.clone()
    }
}

impl Knowledge<'_> {
    fn commit(&self, place: usize) -> &About {
        &self.line.commits[place]
    }

    fn ends(&self, range: &RangeInclusive<usize>) -> String {
        format!(
            "{}..{}, {} commits",
            self.commit(*range.start()).short(),
            self.commit(*range.end()).short(),
            range.end() - range.start()
        )
    }

    fn finding(&self, unit: &Unit, finding: &Finding) -> Part {
        let mut part = Part {
            heading: String::new(),
            facts: vec![("range", self.ends(&finding.range))],
            drawn: None,
        };
        match &finding.outcome {
            Outcome::Found(culprit) => {
                part.heading = format!("{unit}: {}", self.culprit_line(culprit));
                self.culprit(unit, culprit, &mut part);
            }
            Outcome::NoChange(judgement) => {
                part.heading = format!("{unit}: no change");
                part.facts.push(("ends", verdict(unit, judgement)));
            }
            Outcome::Differs(judgement) => {
                part.heading = format!("{unit}: the ends of a part differ");
                part.facts.push(("ends", verdict(unit, judgement)));
            }
            Outcome::Undecided(doubt) => {
                part.heading = format!("{unit}: not decided: {}", self.doubt(*doubt));
            }
            Outcome::Unmeasurable(place) => {
                let why = self.troubles.get(place).map_or("", |why| why);
                let commit = self.commit(*place).title();
                part.heading = format!("{unit}: the end {commit} cannot be measured: {why}");
            }
        }
        if let Some(posterior) = &finding.posterior {
            part.facts.extend(self.state(posterior));
            part.drawn = Some((finding.range.clone(), posterior.clone()));
            if let Outcome::Found(_) = finding.outcome {
                part.facts.extend(self.plainly(&finding.range, posterior));
            }
        }
        part
    }

    fn culprit_line(&self, culprit: &Culprit) -> String {
        let (first, last) = (*culprit.places.start(), *culprit.places.end());
        let title = self.commit(last).title();
        match first == last {
            true => format!("{title} did it"),
            false => format!(
                "{title} did it, or one of the {} before it that could not be measured",
                last - first
            ),
        }
    }

    fn culprit(&self, unit: &Unit, culprit: &Culprit, part: &mut Part) {
        let commit = self.commit(*culprit.places.end());
        let facts = &mut part.facts;
        facts.push(("commit", commit.id.clone()));
        facts.push(("author", commit.author.clone()));
        facts.push(("date", commit.date.clone()));
        facts.push(("subject", commit.subject.clone()));
        if commit.is_merge() {
            let text = "it is a merge: --descend bisects what it brought in";
            facts.push(("merge", text.to_owned()));
        }
        let parent = self.commit(culprit.parent).short();
        let judged = verdict(unit, &culprit.judgement);
        facts.push(("verdict", format!("{judged}, against {parent}")));
        if let Some((estimate, interval)) = culprit.change {
            facts.push((
                "change",
                format!(
                    "{} [{}, {}], by all runs",
                    percent(estimate),
                    percent(interval.low),
                    percent(interval.high)
                ),
            ));
            let probability = format!("{:.1} %", 100.0 * culprit.probability);
            facts.push(("probability", probability));
        }
        for place in *culprit.places.start()..*culprit.places.end() {
            let why = self.troubles.get(&place).map_or("skipped", |why| why);
            let title = self.commit(place).title();
            facts.push(("unmeasured", format!("{title}: {why}")));
        }
    }

    /// What a posterior says.
    fn state(&self, posterior: &Posterior) -> Vec<(&'static str, String)> {
        let credible = posterior.credible(0.95);
        let one = |range: &RangeInclusive<usize>| match range.start() == range.end() {
            true => self.commit(*range.start()).short().to_owned(),
            false => format!(
                "{} to {} ({} commits)",
                self.commit(*range.start()).short(),
                self.commit(*range.end()).short(),
                range.end() - range.start() + 1
            ),
        };
        let ranges: Vec<String> = credible.iter().map(one).collect();
        vec![
            ("95 % in", ranges.join(", ")),
            ("no change", format!("{:.2} %", 100.0 * posterior.none)),
        ]
    }

    /// What plain bisection would have taken.
    fn plainly(
        &self,
        range: &RangeInclusive<usize>,
        posterior: &Posterior,
    ) -> Option<(&'static str, String)> {
        if !self.order_is_posterior {
            return None;
        }
        let best = posterior.best();
        let steps = ((range.end() - range.start()) as f64).log2().ceil() as usize;
        let each = plain_measurements(best.change / best.sigma, steps, 0.95);
        let builds = steps + 2;
        Some((
            "plain bisect",
            format!(
                "{builds} builds and {} measurements, {each} of each commit, to be right in 95 %",
                each * builds as f64
            ),
        ))
    }

    fn doubt(&self, doubt: Doubt) -> String {
        match doubt {
            Doubt::Ends => {
                "the ends can be told neither apart nor equivalent at this noise: CPU time \
                            (--by task-clock-sec/op) has less of it, or a wider --margin would do"
                    .to_owned()
            }
            Doubt::Limit => "--max-runs is reached".to_owned(),
            Doubt::Unconfirmed(place) => format!(
                "{} is most probable, but it does not show against its parent alone",
                self.commit(place).title()
            ),
            Doubt::Exhausted => "all is measured, and no commit stands out".to_owned(),
        }
    }

    fn cost(&self) -> Part {
        let Counts {
            builds,
            unbuildable,
            runs,
            failed,
        } = self.counts;
        let mut facts = vec![
            ("builds", format!("{builds}, and {unbuildable} that failed")),
            (
                "runs",
                format!("{runs}, and {failed} that failed; those of the reference among them"),
            ),
        ];
        let ends = [0, self.line.commits.len() - 1];
        for (place, why) in self.troubles {
            if !ends.contains(place) {
                facts.push(("trouble", format!("{}: {why}", self.commit(*place).title())));
            }
        }
        Part {
            heading: "what it took".to_owned(),
            facts,
            drawn: None,
        }
    }

    /// The first unit's first range, as git tells such a thing.
    fn git_log(&self) -> String {
        let mut text = "git bisect start '--first-parent'\n".to_owned();
        let Some(one) = self.ended.all.first() else {
            return text;
        };
        let mark = |text: &mut String, word: &str, commit: &About| {
            let (id, subject) = (&commit.id, &commit.subject);
            let _ = write!(text, "# {word}: [{id}] {subject}\ngit bisect {word} {id}\n");
        };
        let last = self.line.commits.len() - 1;
        mark(&mut text, "bad", self.commit(last));
        mark(&mut text, "good", self.commit(0));
        for place in self
            .troubles
            .keys()
            .filter(|&&place| 0 < place && place < last)
        {
            mark(&mut text, "skip", self.commit(*place));
        }
        let found = one
            .findings
            .iter()
            .find_map(|finding| match &finding.outcome {
                Outcome::Found(culprit) => Some(culprit),
                _ => None,
            });
        let Some(culprit) = found else {
            return text;
        };
        let made = *culprit.places.end();
        if culprit.parent > 0 {
            mark(&mut text, "good", self.commit(culprit.parent));
        }
        if made < last {
            mark(&mut text, "bad", self.commit(made));
        }
        if culprit.places.start() == culprit.places.end() {
            let (id, subject) = (&self.commit(made).id, &self.commit(made).subject);
            let _ = writeln!(text, "# first bad commit: [{id}] {subject}");
        }
        text
    }
}

fn verdict(unit: &Unit, judgement: &Judgement) -> String {
    format!(
        "{}: {} ({})",
        word(judgement.verdict),
        change(unit, &judgement.comparison),
        judgement.basis()
    )
}
