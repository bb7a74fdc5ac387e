// Makes the pages of flowq live. Without it they are complete, and only their buttons do nothing.
//
// [data-live=RUN] is kept current by events, a page with [data-refresh] by reading it again, form.act
// is sent as JSON, pre[data-log] grows. What others have written is only ever set as text.

const GLYPHS = {
	deferred: "○", scheduled: "◷", queued: "◌", started: "▶", finished: "✓", failed: "✗", tolerated: "!",
	stopped: "■", canceled: "⊘", skipped: "–", expired: "◔", deleted: "∅",
	running: "▶", succeeded: "✓", waiting: "○", staged: "○",
};
const ORDER = "failed stopped expired tolerated started queued scheduled deferred finished skipped canceled deleted".split(" ");
const SVG = "http://www.w3.org/2000/svg";

const ANNOUNCE_MS = 5000;
const REFRESH_MS = 3000; // of lists
const REREAD_MS = 5000; // of the rest of a live page; longer where many look, or where it takes long
const LOG_MS = 1000;
const MAX_PIECES = 1000; // of a log that is followed
const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 30000;
const WATCH_MS = 30000; // whether an ended run goes on
const MAX_FAILURES = 20;
const CHUNK_MS = 30; // of work at a time

const root = document.body.dataset.root || "";
const find = (selector, within = document) => within.querySelector(selector);
const findAll = (selector, within = document) => [...within.querySelectorAll(selector)];
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// What is invisible, or turns the direction of what is read, is spelled as on the server.
const spelled = (text) => String(text).replace(
	/[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
	(c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
);

function setAll(element, attributes) {
	for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

function make(tag, attributes, ...children) {
	const made = document.createElement(tag);
	setAll(made, attributes);
	made.append(...children);
	return made;
}

const glyph = (state) => make("span", { class: "glyph", "aria-hidden": "true" }, GLYPHS[state] || "?");

function setText(element, text) {
	if (element && element.textContent !== text) element.textContent = text;
}

// What is said

let toSay = "", saidAt = -ANNOUNCE_MS, sayTimer = 0;

function say(text) { // for screen readers, every 5 s at most: the newest counts
	toSay = text;
	if (sayTimer) return;
	sayTimer = setTimeout(() => {
		sayTimer = 0;
		saidAt = performance.now();
		setText(find("[data-announce]"), toSay);
	}, Math.max(0, saidAt + ANNOUNCE_MS - performance.now()));
}

const troubles = new Map(); // what does not answer, and since when

function note(what, text) {
	if (!text) troubles.delete(what);
	else if (!troubles.has(what)) troubles.set(what, `${text} since ${new Date().toISOString().slice(11, 19)} UTC`);
	let shown = find("#connection");
	if (!shown) {
		shown = make("div", { id: "connection", class: "connection", role: "status" });
		document.body.append(shown);
	}
	setText(shown, [...troubles.values()].join("; "));
	shown.hidden = !troubles.size;
}

// Nothing moves under the pointer or the focus

let pointed = null;
document.addEventListener("pointermove", (event) => { pointed = event.target; }, { passive: true });

let held = []; // what has the focus, is under the pointer, or is selected
const isBusy = (element) => held.some((each) => element.contains(each));

function steadily(change) { // what is looked at stays where it is
	const { activeElement, body } = document, selection = getSelection(); // slow after a change
	const focused = activeElement !== body && activeElement !== find("main") && activeElement;
	held = [focused, pointed, !selection?.isCollapsed && selection?.anchorNode].filter((each) => each?.isConnected);
	const middle = scrollY > 0 && document.elementFromPoint(innerWidth / 2, innerHeight / 2);
	const seen = [...held, middle].find((each) => {
		const at = each?.getBoundingClientRect?.();
		return at && at.bottom > 0 && at.top < innerHeight && at.height < innerHeight;
	});
	const before = seen?.getBoundingClientRect().top;
	change();
	const by = seen?.isConnected ? seen.getBoundingClientRect().top - before : 0;
	if (Math.abs(by) >= 1) scrollBy({ top: by, behavior: "instant" });
}

// One page becomes a newer one

const KEPT = "pre[data-log], output, script, #connection, [data-announce]";
const UNITS = ["TR", "LI", "ARTICLE", "FORM", "DETAILS"]; // changed as a whole, or not at all
const KEPT_ATTRIBUTES = ["open", "aria-disabled", "data-position"];

const keyOf = ({ id, dataset = {} }) => id || dataset.key || dataset.failure || dataset.job || "";

const isEdited = (field) =>
	field.type === "checkbox" ? field.checked !== field.defaultChecked
		: field.options ? field.selectedIndex !== Math.max(0, [...field.options].findIndex((each) => each.defaultSelected))
			: field.value !== field.defaultValue;

const mayChange = (node) => {
	if (node.nodeType !== 1) return true;
	if (node.matches(KEPT) || (UNITS.includes(node.tagName) && isBusy(node))) return false;
	return node.tagName !== "FORM" || !(node.dataset.sent || findAll("input, select, textarea", node).some(isEdited));
};

const nameAll = () => { // what has no key is told apart by the heading above it, and its number there
	let head = "";
	const counts = new Map();
	return (node) => {
		if (/^H\d/.test(node.nodeName)) head = node.id || node.textContent.replace(/\d/g, "");
		const kind = `${head} ${node.nodeName} ${keyOf(node)}`, number = (counts.get(kind) || 0) + 1;
		counts.set(kind, number);
		return [`${kind} ${number}`, node];
	};
};

function morph(old, next) {
	if (old.isEqualNode(next) || !mayChange(old)) return;
	if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName) {
		if (old.nodeType !== 1 || !isBusy(old)) old.replaceWith(document.importNode(next, true));
		return;
	}
	if (old.nodeType !== 1) {
		old.nodeValue = next.nodeValue;
		return;
	}
	for (const name of new Set([...old.getAttributeNames(), ...next.getAttributeNames()])) {
		const value = next.getAttribute(name);
		if (KEPT_ATTRIBUTES.includes(name) || value === old.getAttribute(name)) continue;
		if (value === null) old.removeAttribute(name);
		else old.setAttribute(name, value);
	}
	const known = new Map([...old.childNodes].map(nameAll())), wanted = new Map([...next.childNodes].map(nameAll()));
	for (const [name, gone] of known) if (!wanted.has(name) && mayChange(gone) && !isBusy(gone)) gone.remove();
	let at = old.firstChild;
	for (const [name, child] of wanted) {
		const same = known.get(name);
		if (!same) {
			old.insertBefore(document.importNode(child, true), at);
			continue;
		}
		if (same === at || isBusy(same)) at = same.nextSibling; // moving it would take the focus away
		else old.insertBefore(same, at);
		morph(same, child);
	}
}

async function readPage() {
	const reply = await fetch(location.href);
	if (!reply.ok) throw new Error(`the page answers ${reply.status}`);
	return new DOMParser().parseFromString(await reply.text(), "text/html");
}

function takeOver(page, selector) {
	const old = findAll(`${selector}, footer time`);
	steadily(() => findAll(`${selector}, footer time`, page).forEach((each, index) => old[index] && morph(old[index], each)));
}

// Lists

let refreshNow = () => {};

async function keepFresh() {
	let wake, failed = 0;
	refreshNow = () => wake?.();
	for (let took = 0; ;) {
		const wait = failed ? Math.min(LONGEST_RETRY_MS, REFRESH_MS * 2 ** failed) : Math.max(REFRESH_MS, 20 * took);
		await Promise.race([sleep(wait), new Promise((done) => { wake = done; })]);
		if (document.hidden) await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
		const began = performance.now();
		try {
			const page = await readPage();
			takeOver(page, "main");
			[failed, took] = [0, performance.now() - began];
			note("page", "");
		} catch (error) {
			failed = Math.min(failed + 1, 4);
			note("page", error instanceof TypeError ? "not connected" : error.message);
		}
	}
}

// A live run

function setState(element, state) {
	const shown = element?.matches(".state") ? element : element && find(".state", element);
	if (!shown || shown.dataset.state === state) return;
	shown.dataset.state = state;
	setText(find(".glyph", shown), GLYPHS[state] || "?");
	setText(find(".word", shown), state);
}

function setCounts(element, counts) {
	const named = ORDER.filter((state) => counts[state]);
	const kept = new Map([...element.children].map((child) => [child.dataset.state, child]));
	let at = element.firstChild;
	for (const state of named) {
		let part = kept.get(state);
		kept.delete(state);
		if (!part) {
			part = make("span", { "data-state": state }, glyph(state), make("span", { "data-count": state }), ` ${state}`);
		}
		setText(find("[data-count]", part), counts[state].toLocaleString("en"));
		if (part === at) at = at.nextSibling;
		else element.insertBefore(part, at);
	}
	for (const gone of kept.values()) gone.remove();
	const bar = element.previousElementSibling;
	if (!bar?.matches("svg.bar")) return;
	const total = named.reduce((sum, state) => sum + counts[state], 0);
	let x = 0;
	named.forEach((state, index) => {
		const rect = bar.children[index] || bar.appendChild(document.createElementNS(SVG, "rect"));
		const width = (100 * counts[state]) / total;
		setAll(rect, { class: state, x: x.toFixed(2), width: width.toFixed(2), height: 8 });
		x += width;
	});
	while (bar.children.length > named.length) bar.lastChild.remove();
}

function showJob(element, job) {
	if (element instanceof SVGElement) {
		element.classList.remove(...ORDER);
		element.classList.add(job.status);
	} else {
		setState(element, job.status);
	}
	const counts = find("[data-counts]", element);
	if (counts && job.counts) setCounts(counts, job.counts);
}

class LiveRun {
	constructor(section) {
		this.section = section;
		this.run = section.dataset.live;
		this.position = section.dataset.position || "";
		this.status = find("[data-status] .state", section)?.dataset.state || "";
		this.title = document.title;
		this.retryMs = FIRST_RETRY_MS;
		this.viewers = 1;
		this.took = 0;
		this.failures = null;
		this.waiting = []; // frames, while the page is read
		this.isReading = false;
		this.list();
		// A browser opens few streams at a time, so one that nobody sees leaves its place.
		document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
		addEventListener("pagehide", () => this.close());
		addEventListener("pageshow", (event) => event.persisted && this.open());
		refreshNow = () => this.reread(0).then(() => this.open());
		this.open();
	}

	list() { // which elements show which job
		this.shown = new Map();
		for (const each of findAll("[data-job]", this.section)) {
			this.shown.set(each.dataset.job, [...(this.shown.get(each.dataset.job) || []), each]);
		}
	}

	open() {
		clearTimeout(this.timer);
		if (this.source || document.hidden) return;
		const after = this.position ? `?after=${encodeURIComponent(this.position)}` : "";
		const source = (this.source = new EventSource(`${root}/api/runs/${encodeURIComponent(this.run)}/events${after}`));
		source.onopen = () => {
			this.retryMs = FIRST_RETRY_MS;
			note("run", "");
			note("server", "");
		};
		source.addEventListener("snapshot", (event) => this.take(event));
		source.addEventListener("frame", (event) => this.take(event));
		source.addEventListener("away", (event) => note("server", JSON.parse(event.data).since ? "the server of the runs is away" : ""));
		source.addEventListener("end", (event) => this.end(JSON.parse(event.data)));
		source.onerror = () => {
			this.close();
			note("run", "not connected");
			this.timer = setTimeout(() => this.open(), this.retryMs * (0.75 + Math.random() / 2));
			this.retryMs = Math.min(2 * this.retryMs, LONGEST_RETRY_MS);
		};
	}

	close() {
		this.source?.close();
		this.source = null;
		clearTimeout(this.timer);
	}

	end({ status }) {
		this.close();
		if (status === "removed") {
			note("run", "this run is no longer kept");
			return;
		}
		if (this.rereadTimer) this.reread(100);
		this.timer = setTimeout(() => this.open(), WATCH_MS); // a retry
	}

	take(event) {
		this.position = event.lastEventId;
		const frame = JSON.parse(event.data);
		if (this.isReading) this.waiting.push(frame);
		this.show(frame);
	}

	show(frame) {
		const { status, counts, jobs, failures } = frame, before = this.status, failed = counts.failed || 0;
		this.viewers = frame.viewers || 1;
		const isNew = failures && JSON.stringify(failures) !== JSON.stringify(this.failures);
		steadily(() => {
			setState(find("[data-status]", this.section), status);
			setText(find("[data-reason]", this.section), spelled(frame.reason));
			for (const each of findAll("[data-counts]", this.section)) if (!each.closest("[data-job]")) setCounts(each, counts);
			if (isNew) this.showFailures(failures, counts);
		});
		this.showJobs(Object.entries(jobs));
		this.status = status;
		if (find("[data-status]", this.section)) document.title = `${GLYPHS[status] || ""} ${failed ? `${failed} failed – ` : ""}${this.title.replace(/^\w+(?=: )/, status)}`;
		if (before !== status || isNew) say(`The run is ${status}: ${counts.finished || 0} finished, ${failed} failed`);
		if (before !== status) this.reread(100);
		else if (isNew || Object.keys(jobs).length) this.reread(Math.max(REREAD_MS, 40 * this.took, 1000 * this.viewers));
	}

	async showJobs(jobs) {
		for (let until = performance.now() + CHUNK_MS, index = 0; index < jobs.length; index += 1) {
			const [name, job] = jobs[index];
			for (const element of this.shown.get(name) || []) if (element.isConnected) showJob(element, job);
			if (performance.now() > until) {
				await new Promise(requestAnimationFrame);
				until = performance.now() + CHUNK_MS;
			}
		}
	}

	showFailures(failures, counts) {
		const before = new Set((this.failures || []).map(({ name }) => name));
		const added = failures.filter(({ name }) => !before.has(name) && !find(`[data-failure="${CSS.escape(name)}"]`, this.section));
		this.failures = failures;
		if (!added.length) return;
		let head = find("#failures", this.section);
		if (!head) {
			head = make("h2", { id: "failures" });
			this.section.insertBefore(head, find(":scope > h2", this.section));
		}
		const number = counts.failed || failures.length;
		setText(head, `${number.toLocaleString("en")} failure${number === 1 ? "" : "s"}`);
		for (const { name, error } of added.reverse()) {
			const link = make("a", { href: `${root}/runs/${encodeURIComponent(this.run)}/jobs/${encodeURIComponent(name)}` }, spelled(name));
			head.after(make("article", { class: "note bad", "data-failure": name }, make("p", {},
				make("span", { class: "state", "data-state": "failed" }, glyph("failed"), " ", make("span", { class: "word" }, "failed")),
				" ", make("b", {}, link), ": ", make("bdi", { class: "why" }, spelled(error)))));
		}
		for (const old of findAll("[data-failure]", this.section).slice(MAX_FAILURES)) if (!isBusy(old)) old.remove();
	}

	reread(wait) { // what frames do not tell
		const at = performance.now() + wait;
		if (this.rereadTimer && this.rereadAt <= at) return Promise.resolve();
		clearTimeout(this.rereadTimer);
		this.rereadAt = at;
		return new Promise((done) => {
			this.rereadTimer = setTimeout(async () => {
				this.rereadTimer = 0;
				if (this.isReading) return done(this.reread(REREAD_MS));
				this.isReading = true;
				const began = performance.now();
				try {
					const page = await readPage();
					takeOver(page, "[data-live]");
					if (find("[data-live]", page)) this.title = page.title;
					this.list();
				} catch {
					// the stream notices it too
				}
				this.took = performance.now() - began;
				this.isReading = false;
				for (const frame of this.waiting.splice(0)) this.show(frame);
				done();
			}, wait);
		});
	}

}

// Acts

function readValue(field) {
	if (field.type === "checkbox") return field.checked;
	const text = field.value, type = field.dataset.type;
	if (type === "bool") return text === "true";
	if (type === "labels") return Object.fromEntries(text.trim().split(/\s*\n\s*/).filter(Boolean).map((line) => line.split(/=(.*)/)));
	const isNumber = type === "int" ? Number.isSafeInteger(Number(text)) : type === "float" && Number.isFinite(Number(text));
	if (!(isNumber && text.trim()) && type !== "json" && type !== "list") return text;
	try {
		return JSON.parse(text);
	} catch {
		return text; // the server says what is wrong with it
	}
}

function readForm(form, submitter) {
	const body = {};
	const put = (name, value) => {
		const at = name.indexOf(".");
		if (at < 0) body[name] = value;
		else (body[name.slice(0, at)] ??= {})[name.slice(at + 1)] = value;
	};
	for (const field of form.elements) {
		if (!field.name || field.disabled || field.tagName === "BUTTON") continue;
		if (field.type === "radio" && !field.checked) continue;
		const isLeftOut = field.type === "checkbox" ? !field.checked && !field.dataset.type : field.value === "" && !field.required;
		if (isLeftOut && field.dataset.type !== "labels") continue;
		put(field.name, readValue(field));
	}
	if (submitter?.name) put(submitter.name, submitter.value);
	return body;
}

async function act(form, submitter) {
	if (form.dataset.sent) return;
	if (form.dataset.confirm && !confirm(form.dataset.confirm)) return;
	const answer = find("output", form), buttons = findAll("button", form);
	form.dataset.sent = "yes"; // `disabled` would take the focus away
	for (const button of buttons) button.setAttribute("aria-disabled", "true");
	setText(answer, "Sending …");
	try {
		const reply = await fetch(form.getAttribute("action"), {
			method: "POST",
			headers: { "Content-Type": "application/json", "X-Flowq-Token": find('meta[name="flowq-token"]')?.content || "" },
			body: JSON.stringify(readForm(form, submitter)),
		});
		const said = await reply.json().catch(() => ({}));
		answer.classList.toggle("bad", !reply.ok);
		if (!reply.ok) {
			setText(answer, spelled(`Not done: ${said.error?.message || `the server answered ${reply.status}`}`));
			form.dispatchEvent(new CustomEvent("refused", { bubbles: true, detail: said.problems || [] }));
		} else {
			setText(answer, spelled(said.message || "Done."));
			for (const field of form.elements) if (["INPUT", "TEXTAREA"].includes(field.tagName)) field.defaultValue = field.value;
			if (form.dataset.to) location.assign(form.dataset.to.replace("{run}", encodeURIComponent(said.run || "")));
			else refreshNow();
		}
	} catch {
		answer.classList.add("bad");
		setText(answer, "No answer: it may have been done.");
	}
	delete form.dataset.sent;
	for (const button of buttons) button.removeAttribute("aria-disabled");
}

document.addEventListener("submit", (event) => {
	if (!event.target.matches("form.act")) return;
	event.preventDefault();
	act(event.target, event.submitter);
});

// Logs

async function follow(log) {
	let from = Number(log.dataset.from) || 0, failed = 0;
	const url = log.dataset.log;
	while (log.isConnected) {
		await sleep(failed ? Math.min(LONGEST_RETRY_MS, LOG_MS * 2 ** failed) : LOG_MS);
		if (document.hidden) continue;
		try {
			const reply = await fetch(`${url}${url.includes("?") ? "&" : "?"}from=${from}`);
			if (!reply.ok) throw new Error(reply.status);
			const said = await reply.json();
			if (said.text) {
				const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
				log.append(spelled(said.text));
				if (log.childNodes.length > MAX_PIECES) log.firstChild.remove();
				if (isAtEnd) log.scrollTop = log.scrollHeight; // unless somebody has scrolled up
			}
			from = said.next ?? from;
			failed = 0;
			if (said.is_complete) return;
		} catch {
			failed = Math.min(failed + 1, 5);
		}
	}
}

// Keys

document.addEventListener("keydown", (event) => {
	if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
	if (event.target.closest?.("input, textarea, select, [contenteditable]")) return;
	const search = find("main input[type=search]");
	if (search) {
		event.preventDefault();
		search.focus();
		search.select();
	}
});

const live = find("[data-live]");
if (live) new LiveRun(live);
else if (find("[data-refresh]")) keepFresh();
for (const log of findAll("pre[data-log]")) follow(log);
