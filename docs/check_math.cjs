// Renders every formula of the given Markdown files with KaTeX in strict mode and prints those that it refuses.
//
//     npm install --no-save katex && node docs/check_math.cjs docs/*.md README.md
//
// A formula is $...$ within a line, or $$...$$ over one line or more. Code blocks and `code` are passed over; \$ is a dollar.
// Prints FILE:LINE: MESSAGE for each bad formula, then "N formulas, M bad". Exit code: 0, or 1 if one is bad or if there is none at all.

"use strict";

const fs = require("fs");
const path = require("path");
const { createRequire } = require("module");

// KaTeX is that of the checkout, wherever the command is started.
const katex = createRequire(path.join(__dirname, "..", "package.json"))("katex");

// The text with all code overwritten by blanks, so that positions and line numbers stay.
function withoutCode(text) {
  const blank = (code) => code.replace(/[^\n]/g, " ");
  const fence = /^ {0,3}(`{3,}|~{3,})[^\n]*\n[\s\S]*?(?:^ {0,3}\1[`~]*[ \t]*$|$(?![\s\S]))/gm;
  return text.replace(fence, blank).replace(/(?<!`)(`+)(?!`)(?:(?!\n\s*\n)[\s\S])*?(?<!`)\1(?!`)/g, blank);
}

// Each formula as { at, tex, display, fault }; fault says why it is none that a Markdown renderer would recognise.
function formulas(text) {
  const found = [];
  const dollar = /(?<!\\)\$\$?/g;
  for (let open; (open = dollar.exec(text)); ) {
    const display = open[0] === "$$";
    const start = dollar.lastIndex;
    const close = display ? /(?<!\\)\$\$/g : /(?<!\\)\$/g;
    close.lastIndex = start;
    const end = close.exec(text);
    const tex = end ? text.slice(start, end.index) : "";
    const formula = { at: open.index, tex, display, fault: null };
    found.push(formula);
    if (!end || (display ? /\n\s*\n/ : /\n/).test(tex)) {
      formula.fault = `${open[0]} without its partner in the same ${display ? "paragraph" : "line"}`;
      continue; // the search goes on behind the opening sign, so that one lost dollar does not hide the rest of the line
    }
    dollar.lastIndex = close.lastIndex;
    if (!tex.trim()) formula.fault = "empty formula";
    else if (!display && (/^\s|\s$/.test(tex) || /\w/.test(text[close.lastIndex] || "") || /\w/.test(text[open.index - 1] || "")))
      formula.fault = `$${tex}$ has a blank inside a dollar, or a letter or digit outside: Markdown would show it as text`;
  }
  return found;
}

function check(file) {
  const text = withoutCode(fs.readFileSync(file, "utf8"));
  const list = formulas(text);
  let bad = 0;
  for (const { at, tex, display, fault } of list) {
    let message = fault;
    if (!message) {
      try {
        katex.renderToString(tex, { displayMode: display, strict: "error", throwOnError: true });
        continue;
      } catch (error) {
        message = error.message;
      }
    }
    bad += 1;
    console.log(`${file}:${text.slice(0, at).split("\n").length}: ${message}`);
  }
  return [list.length, bad];
}

let total = 0;
let bad = 0;
for (const file of process.argv.slice(2)) {
  const [n, m] = check(file);
  total += n;
  bad += m;
}
console.log(`${total} formulas, ${bad} bad`);
process.exitCode = bad || !total ? 1 : 0;
