// Reads an AsyncAPI document on stdin and prints what is wrong with it, by the
// official parser: a line for each error or warning.
'use strict';

const { readFileSync } = require('node:fs');
const { Parser } = require('@asyncapi/parser');

const WARNING = 1; // 0 is an error, 2 and 3 are hints

new Parser().parse(readFileSync(0, 'utf8')).then(({ document, diagnostics }) => {
  for (const d of diagnostics.filter((d) => d.severity <= WARNING)) {
    console.log(`${d.path.join('.')}: ${d.message} (${d.code})`);
  }
  if (document === undefined && diagnostics.length === 0) console.log('no document');
});
