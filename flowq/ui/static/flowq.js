// Makes pages live. [data-live=RUN] is kept current by events, one with [data-refresh] by reading it
// again, form.act is sent as JSON, pre[data-log] grows. Others' texts are only ever set as text.

const GLYPHS = {
	deferred: "○", scheduled: "◷", queued: "◌", started: "▶", finished: "✓", failed: "✗", tolerated: "!",
	stopped: "■", canceled: "⊘", skipped: "–", expired: "◔", deleted: "∅",
	running: "▶", succeeded: "✓", waiting: "○", staged: "○",
};
const ORDER = "failed stopped expired tolerated started queued scheduled deferred finished skipped canceled deleted".split(" ");

const TICK_MS = 5000; // of ages, and of what screen readers say
const REFRESH_MS = 3000; // of lists
const SOON_MS = 1000; // of logs, of a live page with new failures, and of the first retry
const REREAD_MS = 5000; // of a live page with other changes; longer where many look, or where it takes long
const IDLE_MS = 15000; // of one without
const MAX_PIECES = 1000; // of a log that is followed
const LONGEST_RETRY_MS = 30000;
const WATCH_MS = 30000; // whether an ended run goes on
const OVER = ["succeeded", "failed", "canceled", "removed"];

const root = document.body.dataset.root;
const find = (selector, within = document) => within.querySelector(selector);
const findAll = (selector, within = document) => [...within.querySelectorAll(selector)];

// What is invisible, or turns the direction of reading, is spelled as on the server.
const spelled = (text) => String(text).replace(
	/[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
	(c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
);

function make(tag, attributes, ...children) {
	const made = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
	made.append(...children);
	return made;
}

function setText(element, text) {
	if (element && element.textContent !== text) element.textContent = text;
}

// What is said

let toSay = ""; // to screen readers: the newest counts

const notes = new Map(); // what does not answer, since when; and what was done

function note(what, text, since = ` since ${new Date().toISOString().slice(11, 19)} UTC`) {
	if (!text) notes.delete(what);
	else if (!since || !notes.has(what)) notes.set(what, text + since);
	const shown = find("#connection");
	shown.classList.toggle("bad", notes.size > notes.has("act"));
	setText(shown, [...notes.values()].join("; "));
	shown.hidden = !notes.size;
}

// Ages

let ahead = 0; // the clock of the server, in ms

function setClock(page) {
	ahead = Date.parse(find("footer time", page).dateTime) - Date.now();
}

const UNITS_OF_TIME = [["d", 86400, "h", 3600], ["h", 3600, "m", 60], ["m", 60, "s", 1]];

function tellDuration(s) { // as `format_duration`
	if (s < 9.95) return `${s.toFixed(1)}s`;
	const whole = Math.round(s), found = UNITS_OF_TIME.find(([, size]) => whole >= size);
	if (!found) return `${whole}s`;
	const [unit, size, small, smaller] = found;
	return `${Math.floor(whole / size)}${unit} ${String(Math.floor((whole % size) / smaller)).padStart(2, "0")}${small}`;
}

function tellAge(s) { // as `relative`
	if (s <= -1) return `in ${tellDuration(-s)}`;
	if (s < 2) return "just now";
	const [unit, size] = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]].find(([, each]) => s >= each);
	return `${Math.floor(s / size)} ${unit} ago`;
}

function tick() {
	setText(find("[data-announce]"), toSay);
	const since = (at) => (Date.now() + ahead - Date.parse(at)) / 1000;
	for (const each of findAll("time + .ago")) setText(each, tellAge(since(each.previousElementSibling.dateTime)));
	for (const each of findAll("[data-since]")) setText(each, tellDuration(Math.max(0, since(each.dataset.since))));
}

// Nothing moves under the pointer or the focus

let pointed = null;
document.addEventListener("pointermove", (event) => { pointed = event.target; }, { passive: true });

let held = []; // what has the focus, is under the pointer, or is selected
const isBusy = (element) => held.some((each) => element.contains(each));

function steadily(change) { // what is looked at stays where it is
	const { activeElement } = document, selection = getSelection(); // slow after a change
	held = [!activeElement?.matches("body, main") && activeElement, pointed, !selection?.isCollapsed && selection?.anchorNode]
		.filter((each) => each?.isConnected && !each.closest?.("[data-done]"));
	const middle = scrollY > 0 && document.elementFromPoint(innerWidth / 2, innerHeight / 2);
	const places = [find("[data-done]")?.closest(".panel"), ...held, middle]
		.map((each) => [each, each?.getBoundingClientRect?.()])
		.filter(([, at]) => at && at.bottom > 0 && at.top < innerHeight && at.height < innerHeight);
	change();
	const [seen, before] = places.find(([each]) => each.isConnected) || [];
	const by = seen ? seen.getBoundingClientRect().top - before.top : 0;
	if (Math.abs(by) >= 1) scrollBy({ top: by, behavior: "instant" });
}

// One page becomes a newer one

const KEPT = "pre[data-log], output, form[data-sent], form[data-edited]";
const UNITS = "tr, li, article, form, details"; // changed as a whole, or not at all
const KEPT_ATTRIBUTES = ["open", "aria-disabled", "tabindex"];

const mayChange = (node) =>
	node.nodeType !== 1 || node.dataset.done || !(node.matches(KEPT) || (node.matches(UNITS) && isBusy(node)));

const nameAll = () => { // what has no key is told apart by the heading above it, and its number there
	let head = "";
	const counts = new Map();
	return (node) => {
		if (/^H\d/.test(node.nodeName)) head = node.id || node.textContent.replace(/\d/g, "");
		const { id, dataset = {} } = node, key = id || dataset.key || dataset.failure || dataset.job || "";
		const kind = `${head} ${node.nodeName} ${key}`, number = (counts.get(kind) || 0) + 1;
		counts.set(kind, number);
		return [`${kind} ${number}`, node];
	};
};

function morph(old, next) {
	if (old.isEqualNode(next) || !mayChange(old)) return;
	if (old.nodeType !== 1) return void (old.nodeValue = next.nodeValue);
	for (const name of new Set([...old.getAttributeNames(), ...next.getAttributeNames()])) {
		const value = next.getAttribute(name);
		if (KEPT_ATTRIBUTES.includes(name) || value === old.getAttribute(name)) continue;
		if (value === null) old.removeAttribute(name);
		else old.setAttribute(name, value);
	}
	const known = new Map([...old.childNodes].map(nameAll())), wanted = new Map([...next.childNodes].map(nameAll()));
	const stays = (node) => isBusy(node) || (!mayChange(node) && !node.matches("form, pre"));
	const kept = new Set(); // what is gone, but looked at: in its place
	for (const [name, gone] of known) if (!wanted.has(name)) stays(gone) ? kept.add(gone) : gone.remove();
	let at = old.firstChild;
	for (const [name, child] of wanted) {
		while (kept.has(at)) at = at.nextSibling;
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

async function readPage(selector) {
	const reply = await fetch(location.href);
	if (!reply.ok) throw new Error(`the page answers ${reply.status}`);
	const page = new DOMParser().parseFromString(await reply.text(), "text/html");
	setClock(page);
	enable(page);
	const parts = `${selector}, footer time`, old = findAll(parts);
	steadily(() => findAll(parts, page).forEach((each, index) => old[index] && morph(old[index], each)));
	tick();
	followAll();
	if (find(selector, page)) document.title = page.title;
}

let dueAt = Infinity, wake = () => {}, asked = [];

function reread(wait) { // after so many ms, at the latest
	dueAt = Math.min(dueAt, performance.now() + wait);
	wake();
}

const rereadNow = () => new Promise((done) => {
	asked.push(done);
	reread(0);
});

async function keepFresh({ read, wait }) {
	reread(wait(0));
	for (let failed = 0, took = 0; ;) {
		for (let left; (left = dueAt - performance.now()) > 0 || document.hidden;) {
			await new Promise((done) => {
				wake = done;
				setTimeout(done, document.hidden ? LONGEST_RETRY_MS : Math.min(left, LONGEST_RETRY_MS));
			});
		}
		const answered = asked, began = performance.now();
		[dueAt, asked] = [Infinity, []];
		try {
			await read();
			[failed, took] = [0, performance.now() - began];
			note("page", "");
			for (const done of answered) done();
		} catch (error) {
			asked.push(...answered);
			failed = Math.min(failed + 1, 3);
			note("page", error instanceof TypeError ? "not connected" : error.message);
		}
		reread(failed ? REFRESH_MS * 2 ** failed : wait(took));
	}
}

// A live run

function setState(element, state) {
	const shown = element && find(".state", element);
	if (!shown || shown.dataset.state === state) return;
	shown.dataset.state = state;
	setText(find(".glyph", shown), GLYPHS[state] || "?");
	setText(find(".word", shown), state);
}

function setCounts(element, counts) {
	const shown = [...element.children];
	const parts = ORDER.filter((state) => counts[state]).map((state) => {
		const part = shown.find((each) => each.dataset.state === state) || make("span", { "data-state": state },
			make("span", { class: "glyph", "aria-hidden": "true" }, GLYPHS[state]), make("span", { "data-count": state }), ` ${state}`);
		setText(find("[data-count]", part), counts[state].toLocaleString("en"));
		return part;
	});
	if (parts.length !== shown.length || parts.some((part, index) => part !== shown[index])) element.replaceChildren(...parts);
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
	retryMs = SOON_MS;
	viewers = 1;
	took = 0;
	waiting = null; // frames, while the page is read

	constructor(section) {
		this.section = section;
		this.position = section.dataset.position || "";
		this.status = find("[data-status] .state", section)?.dataset.state || "";
		// A browser opens few streams at a time, so one that nobody sees leaves its place.
		document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
		this.open();
		keepFresh({ read: () => this.read(), wait: (took) => this.wait(IDLE_MS, took) });
	}

	open() {
		clearTimeout(this.timer);
		if (this.source || document.hidden) return;
		const after = this.position ? `?after=${encodeURIComponent(this.position)}` : "";
		const source = (this.source = new EventSource(`${root}/api/runs/${encodeURIComponent(this.section.dataset.live)}/events${after}`));
		source.onopen = () => {
			this.retryMs = SOON_MS;
			if (notes.has("page")) reread(0);
			note("page", "");
			note("server", "");
		};
		for (const kind of ["snapshot", "frame"]) source.addEventListener(kind, (event) => this.take(event));
		source.addEventListener("away", (event) => {
			const { since } = JSON.parse(event.data);
			note("server", since && "the server of the runs is away");
			if (!since) reread(100);
		});
		source.addEventListener("end", (event) => this.end(JSON.parse(event.data)));
		source.onerror = () => {
			this.close();
			note("page", "not connected");
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
		this.status = status;
		if (status === "removed") note("run", "this run is no longer kept");
		else this.timer = setTimeout(() => this.open(), WATCH_MS); // a retry
	}

	take(event) {
		this.position = event.lastEventId;
		const frame = JSON.parse(event.data);
		this.waiting?.push(frame);
		this.show(frame);
	}

	show(frame) {
		const { status, counts, jobs, failures } = frame, before = this.status, failed = counts.failed || 0;
		const name = this.section.dataset.of, own = name ? jobs[name]?.status : status, look = document.title[0];
		this.viewers = frame.viewers || 1;
		steadily(() => {
			setState(find("[data-status]", this.section), status);
			setText(find("[data-reason]", this.section), spelled(frame.reason));
			for (const each of findAll("[data-counts]:not([data-job] *)", this.section)) setCounts(each, counts);
		});
		for (const each of findAll("[data-job]", this.section)) {
			if (Object.hasOwn(jobs, each.dataset.job)) showJob(each, jobs[each.dataset.job]);
		}
		this.status = status;
		if (own) document.title = document.title.replace(/^\S+/, GLYPHS[own] || "?");
		if (!name) document.title = document.title.replace(/( \(\d+ failed\))? – flowq$/, `${failed ? ` (${failed} failed)` : ""} – flowq`);
		if (before !== status || failures) toSay = `The run is ${status}: ${counts.finished || 0} finished, ${failed} failed`;
		if (before !== status || look !== document.title[0]) reread(100);
		else if (failures || Object.keys(jobs).length) reread(this.wait(failures ? SOON_MS : REREAD_MS));
	}

	wait(least, took = this.took) {
		this.took = took;
		return OVER.includes(this.status) ? Infinity : Math.max(least, 40 * took, 1000 * this.viewers);
	}

	async read() { // what frames do not tell
		const frames = (this.waiting = []);
		try {
			await readPage("[data-live]");
		} finally {
			this.waiting = null;
			frames.forEach((frame) => this.show(frame));
		}
	}
}

// Acts

function readValue(field) {
	if (field.type === "checkbox") return field.checked;
	const text = field.value, type = field.dataset.type;
	if (type === "bool") return text === "true";
	if (type === "labels") {
		const lines = text.trim().split(/\s*\n\s*/).filter(Boolean);
		if (lines.some((line) => line.indexOf("=") < 1)) throw new Error("Write one label a line, as in team=data.");
		return Object.fromEntries(lines.map((line) => line.split(/=(.*)/)));
	}
	const isNumber = type === "int" ? Number.isSafeInteger(Number(text)) : type === "float" && Number.isFinite(Number(text));
	if (!(isNumber && text.trim()) && type !== "json" && type !== "list") return text;
	try {
		return JSON.parse(text);
	} catch (error) {
		if (type === "json" && text) throw new Error(`This is not JSON: ${error.message}`);
		return text; // the server says what is wrong with it
	}
}

function readForm(form) { // null where a field does not fit
	const body = {};
	for (const field of form.elements) {
		if (!field.name || field.disabled) continue;
		const isLeftOut = field.type === "checkbox" ? !field.checked && !field.dataset.type : field.value === "" && !field.required;
		if (isLeftOut && field.dataset.type !== "labels") continue;
		const [, outer, name] = /^(?:([^.]*)\.)?(.*)$/s.exec(field.name);
		try {
			(outer === undefined ? body : (body[outer] ??= {}))[name] = readValue(field);
		} catch (error) {
			field.setCustomValidity(error.message);
		}
	}
	return form.reportValidity() ? body : null;
}

// Without this script, buttons of acts would lead nowhere.
const enable = (page) => findAll("form.act button", page).forEach((button) => { button.disabled = false; });

async function act(form) {
	const body = !form.dataset.sent && readForm(form);
	if (!body || (form.dataset.confirm && !confirm(form.dataset.confirm))) return;
	const answer = find("output", form), button = find("button", form);
	form.dataset.sent = "yes"; // `disabled` would take the focus away
	button.setAttribute("aria-disabled", "true");
	setText(answer, "Sending …");
	try {
		const reply = await fetch(form.getAttribute("action"), {
			method: "POST",
			headers: { "Content-Type": "application/json", "X-Flowq-Token": find('meta[name="flowq-token"]')?.content || "" },
			body: JSON.stringify(body),
		});
		const said = await reply.json().catch(() => ({}));
		answer.classList.toggle("bad", !reply.ok);
		if (!reply.ok) {
			setText(answer, spelled(`Not done: ${said.error?.message || `the server answered ${reply.status}`}`));
			for (const { input, message } of said.problems || []) {
				form.elements[`inputs.${input}`]?.setCustomValidity(spelled(message));
			}
			form.reportValidity();
		} else {
			const message = spelled(said.message || "Done.");
			setText(answer, message);
			if (form.dataset.to) location.assign(form.dataset.to.replace("{run}", encodeURIComponent(said.run || "")));
			else await showDone(form, message);
		}
	} catch {
		answer.classList.add("bad");
		setText(answer, "No answer: it may have been done. The page will show it.");
		rereadNow().then(() => setText(answer, ""));
	}
	delete form.dataset.sent;
	button.removeAttribute("aria-disabled");
}

async function showDone(form, message) { // in the place of the form
	const heads = findAll("h1, h2, h3").filter((head) => head.compareDocumentPosition(form) & 4); // before it
	const hadFocus = form.contains(document.activeElement);
	form.dataset.done = "yes";
	delete form.dataset.edited;
	note("act", message, "");
	setTimeout(() => note("act", ""), 10000);
	await rereadNow();
	run?.open(); // it may go on
	delete form.dataset.done;
	if (form.isConnected || !hadFocus || document.activeElement !== document.body) return;
	const head = heads.findLast((each) => each.isConnected);
	head.tabIndex = -1;
	head.focus({ preventScroll: true });
}

document.addEventListener("input", ({ target }) => {
	target.form?.setAttribute("data-edited", "");
	target.setCustomValidity("");
});

document.addEventListener("click", ({ target }) => { // what was refused may fit now
	if (target.matches("form.act button")) for (const field of target.form.elements) field.setCustomValidity("");
});

document.addEventListener("submit", (event) => {
	if (!event.target.matches("form.act")) return;
	event.preventDefault();
	act(event.target);
});

// Logs

async function follow(log) {
	let from = Number(log.dataset.from) || 0, failed = 0, rest = "";
	while (log.isConnected) {
		await new Promise((done) => setTimeout(done, SOON_MS * 2 ** failed));
		if (document.hidden) continue;
		try {
			const reply = await fetch(`${log.dataset.log}&from=${from}`);
			if (!reply.ok) throw new Error(reply.status);
			const said = await reply.json();
			if (said.text) {
				const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
				const text = (rest + said.text).replace(/\x1b\[[\d;:]*m/g, ""); // colours
				rest = /(\x1b(\[[\d;:]*)?)?$/.exec(text)[0];
				log.lastElementChild.before(spelled(text.slice(0, text.length - rest.length)));
				if (log.childNodes.length > MAX_PIECES) log.firstChild.remove();
				if (isAtEnd) log.scrollTop = log.scrollHeight; // unless somebody has scrolled up
			}
			from = said.next ?? from;
			failed = 0;
			if (said.is_complete) return;
		} catch {
			failed = Math.min(failed + 1, 4);
		}
	}
}

function followAll() {
	for (const log of findAll("pre[data-log]")) log.isFollowed ||= (follow(log), true);
}

// Keys

document.addEventListener("keydown", (event) => {
	const { key, target } = event;
	if (key === "Enter" && target.matches("form.act input")) { // which sends nothing: the button does
		event.preventDefault();
		find("button", target.form).focus();
	}
	if (key === "Enter" && event.repeat && target.matches("form.act button")) event.preventDefault();
	if (key !== "/" || event.ctrlKey || event.metaKey || event.altKey || target.closest?.("input, textarea, select")) return;
	const search = find("main input[type=search]");
	if (search) {
		event.preventDefault();
		search.focus();
	}
});

setClock(document);
enable(document);
followAll();
setInterval(() => document.hidden || tick(), TICK_MS);
document.addEventListener("visibilitychange", () => wake());
const live = find("[data-live]");
const run = live && new LiveRun(live);
if (!live && find("[data-refresh]")) keepFresh({ read: () => readPage("main"), wait: (took) => Math.max(REFRESH_MS, 20 * took) });
