// Makes the readable page of /openapi.json. No framework, nothing from another host; text is set as text, never as HTML.
"use strict";

const METHODS = ["get", "post", "put", "delete"];
// What every call may answer, said once instead of thirty times.
const COMMON = ["413", "414", "415", "429", "431", "500"];
let api;

// --- elements ---------------------------------------------------------------------------------------------------
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== ""));
  return element;
}

// `code`, **bold** and *emphasis* of a sentence.
function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*|\*[^*]+\*)/).filter(Boolean).map((part) => {
    if (part.startsWith("`")) return make("code", {}, part.slice(1, -1));
    if (part.startsWith("**")) return make("strong", {}, ...inline(part.slice(2, -2)));
    if (part.startsWith("*") && part.length > 2) return make("em", {}, part.slice(1, -1));
    return part;
  });
}

// Paragraphs, and lists of lines that begin with "- ".
function prose(text = "") {
  return text.split("\n\n").filter(Boolean).map((block) =>
    block.startsWith("- ")
      ? make("ul", {}, block.split("\n").map((line) => make("li", {}, ...inline(line.replace(/^- /, "")))))
      : make("p", { class: "prose" }, ...inline(block)));
}

function copyable(text) {
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return make("div", { class: "copy" }, make("pre", { tabindex: "0" }, make("code", {}, text)), button);
}

function table(headings, rows) {
  return make("table", {}, make("thead", {}, make("tr", {}, headings.map((each) => make("th", { scope: "col" }, each)))), make("tbody", {}, rows));
}

// --- the description --------------------------------------------------------------------------------------------
function resolve(node) {
  while (node && node.$ref) {
    node = node.$ref.slice(2).split("/").reduce((at, key) => at[key.replaceAll("~1", "/").replaceAll("~0", "~")], api);
  }
  return node;
}

const nameOf = (node) => node && node.$ref ? node.$ref.split("/").pop() : undefined;
const isStructure = (schema) => Boolean(schema.properties || schema.oneOf);

// A schema in a few words: "Time", "whole number 1 to 1000", "list of Line", "Purchase or Cart".
function words(node) {
  if (!node) return ["anything"];
  const schema = resolve(node), name = nameOf(node);
  if (name && isStructure(schema)) return [make("a", { href: `#schema-${name}` }, name)];
  if (schema.const !== undefined) return [make("code", {}, JSON.stringify(schema.const))];
  if (schema.enum) return join(schema.enum.map((each) => make("code", {}, JSON.stringify(each))), " or ");
  const branches = schema.oneOf || (schema.type ? undefined : schema.anyOf);
  if (branches) return join(branches.map((each) => each.type === "null" ? "null" : make("span", {}, ...words(each))), " or ");
  if (name && schema.pattern) return [make("a", { href: `#schema-${name}` }, name)];
  const types = [].concat(schema.type || "anything");
  return join(types.map((type) => make("span", {}, ...ofType(type, schema))), " or ");
}

function ofType(type, schema) {
  switch (type) {
    case "array": return [`list${range(schema.minItems, schema.maxItems)} of `, ...words(schema.items)];
    case "integer": return [`whole number${range(schema.minimum, schema.maximum)}`];
    case "number": return [`number${range(schema.minimum, schema.maximum)}`];
    case "string": return [schema.format === "date-time" ? "time" : `text${range(schema.minLength, schema.maxLength)}`];
    case "boolean": return ["true or false"];
    default: return [type];
  }
}

function range(low, high) {
  if (high >= Number.MAX_SAFE_INTEGER) high = undefined;
  if (low === undefined && high === undefined) return "";
  if (high === undefined) return ` from ${low.toLocaleString("en")}`;
  return low === undefined ? ` up to ${high.toLocaleString("en")}` : ` ${low.toLocaleString("en")} to ${high.toLocaleString("en")}`;
}

function join(parts, separator) {
  return parts.flatMap((part, i) => i ? [separator, part] : [part]);
}

function describe(node) {
  const schema = resolve(node);
  return node.description || schema.description || "";
}

function memberRow(name, schema, required) {
  const inner = resolve(schema);
  const nested = !nameOf(schema) && inner.properties ? members(inner) : "";
  const items = inner.items && !nameOf(inner.items) && inner.items.properties ? members(inner.items) : "";
  return make("tr", {},
    make("td", { class: "member" }, make("code", { class: required ? "must" : undefined }, name)),
    make("td", {}, make("div", {}, ...words(schema)), ...inline(describe(schema)), nested, items));
}

function members(schema) {
  const required = new Set(schema.required || []);
  return table(["Member", "What it is"], Object.entries(schema.properties).map(([name, each]) => memberRow(name, each, required.has(name))));
}

// A named structure as a link and the table of its members, anything else in words.
function shape(node) {
  const schema = resolve(node);
  if (schema.properties && schema.type === "object") return [make("p", {}, ...words(node)), members(schema)];
  return [make("p", {}, ...words(node))];
}

function example(media) {
  const first = Object.values(media.examples || {}).map(resolve);
  return first.flatMap((each) => [make("h4", {}, `For example: ${each.summary.toLowerCase()}`), copyable(JSON.stringify(each.value, null, 2))]);
}

// --- a call -----------------------------------------------------------------------------------------------------
function quote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function curl(path, method, operation, parameters) {
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => {
    const parameter = parameters.find((each) => each.name === name);
    return parameter && parameter.example ? parameter.example : "1";
  });
  const lines = [`curl ${location.origin}${filled}`];
  if (method !== "get") lines[0] = `curl -X ${method.toUpperCase()} ${location.origin}${filled}`;
  if (!operation.security) lines.push('-H "Authorization: Bearer $TOKEN"');
  if (parameters.some((each) => each.name === "Idempotency-Key")) lines.push('-H "Idempotency-Key: $(uuidgen)"');
  if (path === "/api/events") lines[0] = lines[0].replace("curl", "curl -N");
  if (operation.requestBody) {
    const [type, media] = Object.entries(operation.requestBody.content)[0];
    const value = resolve(Object.values(media.examples)[0]).value;
    if (type === "application/json") {
      lines.push("-H 'Content-Type: application/json'", `-d ${quote(JSON.stringify(value))}`);
    } else {
      lines.push(...Object.entries(value).map(([name, each]) => `--data-urlencode ${quote(`${name}=${each}`)}`));
    }
  }
  return lines.join(" \\\n  ");
}

function parameterRow(parameter) {
  return make("tr", {},
    make("td", { class: "member" }, make("code", { class: parameter.required ? "must" : undefined }, parameter.name), make("div", { class: "quiet" }, `in the ${parameter.in}`)),
    make("td", {}, make("div", {}, ...words(parameter.schema)), ...inline(parameter.description || "")));
}

function problemList(schema) {
  const problems = (schema.oneOf || [schema]).map(resolve).filter((each) => each.properties);
  return make("ul", {}, problems.map((each) => {
    const type = each.properties.type.const;
    const own = Object.keys(each.properties).filter((name) => !["type", "title", "status", "detail"].includes(name));
    const more = own.length ? [" Also: ", ...join(own.map((name) => make("code", {}, name)), ", "), "."] : [];
    return make("li", {}, make("a", { href: type }, type.split("/").pop()), ": ", ...inline(each.description), ...more);
  }));
}

function content(type, media) {
  if (type === "application/problem+json") return [problemList(resolve(media.schema)), ...example(media)];
  const events = Object.entries(media["x-event-data"] || {}).flatMap(([name, schema]) => [make("p", {}, "Event ", make("code", {}, name), ", whose data is ", ...words(schema), ".")]);
  return [make("p", { class: "quiet" }, type), ...(type.endsWith("json") ? shape(media.schema) : []), ...events, ...example(media)];
}

function answer(status, response) {
  const headers = Object.entries(response.headers || {}).filter(([name]) => !/^(X-Request-Id|RateLimit.*)$/.test(name));
  const list = headers.map(([name, header]) => make("li", {}, make("code", {}, name), ": ", ...inline(resolve(header).description)));
  return make("details", { class: "answer", open: status === "200" || status === "201" },
    make("summary", {}, make("span", { class: `status s${status[0]}` }, status), make("span", {}, ...inline(response.description))),
    list.length ? make("ul", {}, list) : "",
    Object.entries(response.content || {}).flatMap(([type, media]) => content(type, media)));
}

function call(path, method, operation) {
  const parameters = [...(api.paths[path].parameters || []), ...(operation.parameters || [])].map(resolve);
  const body = operation.requestBody ? Object.entries(operation.requestBody.content)[0] : undefined;
  const answers = Object.entries(operation.responses).map(([status, response]) => [status, resolve(response)]);
  const common = answers.filter(([status]) => COMMON.includes(status));
  const who = operation.security ? "open" : operation.responses["403"] ? "admins" : "signed in";
  return make("details", { class: operation.deprecated ? "call old" : "call", id: operation.operationId },
    make("summary", {}, make("span", { class: `method ${method.toUpperCase()}` }, method.toUpperCase()), make("code", {}, path), make("span", {}, operation.summary), make("span", { class: "tag" }, who)),
    make("div", { class: "inside" },
      ...prose(operation.description),
      copyable(curl(path, method, operation, parameters)),
      parameters.length ? [make("h3", {}, "Parameters"), table(["Name", "What it is"], parameters.map(parameterRow))] : [],
      body ? [make("h3", {}, "Body"), make("p", { class: "quiet" }, body[0]), ...shape(body[1].schema), ...example(body[1])] : [],
      make("h3", {}, "Answers"),
      answers.filter(([status]) => !COMMON.includes(status)).map(([status, response]) => answer(status, response)),
      make("details", { class: "answer" },
        make("summary", {}, make("span", { class: "quiet" }, `And, as everywhere: ${common.map(([status]) => status).join(", ")}`)),
        common.map(([status, response]) => answer(status, response)))));
}

// --- the page ---------------------------------------------------------------------------------------------------
function callsOf(tag) {
  return Object.entries(api.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method] && item[method].tags.includes(tag)).map((method) => [path, method, item[method]]));
}

function section(tag) {
  return make("section", { "aria-label": tag.name }, make("h2", {}, tag.name), ...prose(tag.description), callsOf(tag.name).map((each) => call(...each)));
}

function schemaBox([name, schema]) {
  const branches = schema.oneOf ? [make("p", {}, ...words(schema))] : [];
  return make("details", { class: "schema", id: `schema-${name}` },
    make("summary", {}, make("code", {}, name), make("span", { class: "quiet" }, ...inline(schema.description || ""))),
    make("div", { class: "inside" }, schema.properties ? members(schema) : branches.length ? branches : make("p", {}, ...words(schema))));
}

function problems() {
  const all = Object.values(api.components.schemas).filter((schema) => schema.properties && schema.properties.type && schema.properties.type.const);
  return make("section", { id: "problems" }, make("h2", {}, "Problems"),
    table(["Status", "Type", "What it means"], all.map((each) => make("tr", {}, make("td", {}, String(each.properties.status.const)),
      make("td", {}, make("a", { href: each.properties.type.const }, each.properties.type.const.split("/").pop())), make("td", {}, ...inline(each.description))))));
}

function schemas() {
  const shown = Object.entries(api.components.schemas).filter(([, schema]) => !(schema.properties && schema.properties.type && schema.properties.type.const));
  return make("section", { id: "schemas" }, make("h2", {}, "Schemas"), shown.map(schemaBox));
}

function contents() {
  const link = ([, , operation]) => make("li", {}, make("a", { href: `#${operation.operationId}` }, operation.summary));
  return [...api.tags.flatMap((tag) => [make("h2", {}, tag.name), make("ul", {}, callsOf(tag.name).filter(([, , operation]) => !operation.deprecated).map(link))]),
    make("h2", {}, "More"), make("ul", {}, make("li", {}, make("a", { href: "#problems" }, "Problems")), make("li", {}, make("a", { href: "#schemas" }, "Schemas")))];
}

// What the address names is opened and shown.
function follow() {
  const target = location.hash ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
  if (target instanceof HTMLDetailsElement) target.open = true;
  if (target) target.scrollIntoView();
}

function watchFilter() {
  const field = document.getElementById("filter");
  document.querySelector(".filter").hidden = false;
  const boxes = [...document.querySelectorAll("details.call, details.schema")].map((box) => [box, box.textContent.toLowerCase()]);
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const [box, text] of boxes) box.hidden = wanted !== "" && !text.includes(wanted);
    for (const each of document.querySelectorAll("main > section")) {
      const own = [...each.querySelectorAll("details.call, details.schema")];
      each.hidden = own.length > 0 && own.every((box) => box.hidden);
    }
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement;
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      field.focus();
    }
    if (event.key === "Escape" && event.target === field) {
      field.value = "";
      field.dispatchEvent(new Event("input"));
    }
  });
}

async function start() {
  try {
    const response = await fetch("/openapi.json");
    if (!response.ok) throw new Error(response.statusText);
    api = await response.json();
  } catch {
    document.getElementById("failed").hidden = false;
    return;
  }
  document.getElementById("version").textContent = api.info.version;
  document.getElementById("contents").replaceChildren(...contents());
  document.getElementById("main").replaceChildren(make("section", { "aria-label": "About" }, ...prose(api.info.description)), ...api.tags.map(section), problems(), schemas());
  watchFilter();
  window.addEventListener("hashchange", follow);
  follow();
}

start();
