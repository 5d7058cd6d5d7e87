// Reads a list of AsyncAPI documents on stdin and writes a list of what the official
// parser finds wrong with each, errors and warnings, both as JSON.
'use strict';

const { readFileSync } = require('node:fs');
const { Parser } = require('@asyncapi/parser');

const WARNING = 1; // 0 is an error, 2 and 3 are hints

async function findings(document) {
  const { diagnostics } = await new Parser().parse(document);
  return diagnostics
    .filter((d) => d.severity <= WARNING)
    .map((d) => `${d.path.join('.')}: ${d.message} (${d.code})`);
}

Promise.all(JSON.parse(readFileSync(0, 'utf8')).map(findings)).then((all) => {
  console.log(JSON.stringify(all));
});
