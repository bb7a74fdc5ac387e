// Checks the fields of forms before they are sent, and marks those that the server refuses.

const find = (id) => document.getElementById(id);

function unmark(field) {
	const id = `${field.id}-error`, told = find(id);
	if (!told) return;
	told.remove();
	field.removeAttribute("aria-invalid");
	const others = field.getAttribute("aria-describedby").split(" ").filter((each) => each !== id);
	if (others.length) field.setAttribute("aria-describedby", others.join(" "));
	else field.removeAttribute("aria-describedby");
}

function mark(field, message) {
	const told = document.createElement("span"), id = `${field.id}-error`;
	unmark(field);
	told.id = id;
	told.className = "why-not";
	told.textContent = message;
	field.after(told);
	field.setAttribute("aria-invalid", "true");
	field.setAttribute("aria-describedby", `${field.getAttribute("aria-describedby") || ""} ${id}`.trim());
}

function explain({ dataset: { type }, value }) { // what attributes cannot say
	const text = value.trim();
	if (type === "labels" && text.split("\n").some((line) => line.trim() && line.trim().indexOf("=") < 1)) {
		return "Write one label a line, as in team=data.";
	}
	if (type !== "json" || !text) return "";
	try {
		JSON.parse(text);
		return "";
	} catch (error) {
		return `This is not JSON: ${error.message}`;
	}
}

for (const type of ["input", "change"]) {
	document.addEventListener(type, ({ target }) => {
		if (!target.closest("form.act")) return;
		unmark(target);
		target.setCustomValidity(explain(target));
	});
}

document.addEventListener("submit", ({ target }) => {
	for (const field of target.elements) if (field.id) unmark(field);
});

document.addEventListener("refused", ({ target, detail }) => { // the server's problems, for a form
	const named = detail.filter(({ input }) => target.elements[`inputs.${input}`]?.id);
	for (const { input, message } of named) mark(target.elements[`inputs.${input}`], message);
	if (named.length) target.elements[`inputs.${named[0].input}`].focus();
});
