// What chat.d.ts declares, and web/README.md shows, is what there is.
import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import * as module from "../../../web/chat.js";
import { chatd, poll, WebSocket } from "./service.js";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const program = ts.createProgram([path("uses.ts"), path("../../../web/chat.d.ts")], {
  noEmit: true, strict: true, types: [],
  target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.NodeNext, lib: ["lib.es2022.d.ts", "lib.dom.d.ts", "lib.dom.iterable.d.ts"],
});
const declarations = program.getSourceFile(path("../../../web/chat.d.ts"));

test("a program that uses the types passes tsc --strict", () => {
  const files = [declarations, program.getSourceFile(path("uses.ts"))]; // not those of TypeScript itself
  const found = [program.getConfigFileParsingDiagnostics(), ...files.map((file) => ts.getPreEmitDiagnostics(program, file))].flat();
  assert.equal(ts.formatDiagnostics(found, { getCanonicalFileName: (name) => name, getCurrentDirectory: () => path("."), getNewLine: () => "\n" }), "");
});

test("that program uses all of them", () => {
  const declared = new Set(), used = new Set();
  const names = (node, found) => {
    if (ts.isIdentifier(node) && (found === used || node.parent.name === node) && !ts.isTypeParameterDeclaration(node.parent) && !ts.isParameter(node.parent)) found.add(node.text);
    if (ts.isStringLiteral(node)) found.add(node.text);
    if (!ts.isUnionTypeNode(node) || found === used) node.forEachChild((child) => names(child, found));
  };
  names(declarations, declared);
  names(program.getSourceFile(path("uses.ts")), used);
  assert.ok(declared.size > 50, `${declared.size} names`);
  assert.deepEqual([...declared].filter((name) => !used.has(name)), []);
});

test("the module has what is declared, and nothing else", () => {
  const checker = program.getTypeChecker();
  const exported = checker.getExportsOfModule(checker.getSymbolAtLocation(declarations)).filter(({ flags }) => flags & ts.SymbolFlags.Value);
  assert.deepEqual(Object.keys(module).sort(), exported.map(({ name }) => name).sort());

  const members = (name) => [...exported.find((symbol) => symbol.name === name).members.keys()].filter((member) => !member.startsWith("__"));
  const chat = Object.getOwnPropertyNames(module.Chat.prototype).filter((name) => name !== "constructor");
  assert.deepEqual(chat.sort(), members("Chat").filter((name) => !name.endsWith("EventListener")).sort());
  const error = Object.keys(new module.ChatError("closed", "it was")).filter((name) => name !== "name");
  assert.deepEqual(error.sort(), members("ChatError").sort());
});

test("each kind of error that the module makes is declared", async () => {
  const text = await readFile(path("../../../web/chat.js"), "utf8");
  const made = new Set([...text.matchAll(/(?:ChatError\(|: \[|^\s*const kinds.*)"([a-z_]+)"/gm)].map((match) => match[1]));
  const declared = new Set();
  declarations.forEachChild((node) => {
    if (ts.isTypeAliasDeclaration(node) && node.name.text === "ErrorKind") for (const { literal } of node.type.types) declared.add(literal.text);
  });
  assert.ok(made.size >= 9, [...made].join());
  assert.deepEqual([...made].filter((kind) => !declared.has(kind)), []);
});

test("the program in both READMEs runs", async (t) => {
  const program = async (name) => (await readFile(path(`../../../${name}`), "utf8")).match(/^```js\n([^]*?)^```$/m)[1];
  const code = await program("web/README.md");
  assert.equal(await program("README.md"), code);
  const service = await chatd(t);
  const file = path(`readme-${process.pid}.tmp.mjs`);
  await writeFile(file, `${code
    .replace("./chat.js", "../../../web/chat.js")
    .replace("https://localhost:8443/", service.url)
    .replace("password)", `${JSON.stringify(JSON.parse(process.env.PASSWORDS).admin)})`)}\nexport { chat };`);
  t.after(() => rm(file));
  globalThis.WebSocket = WebSocket;
  const said = [];
  t.mock.method(console, "log", (line) => said.push(line));
  const { chat } = await import(file);
  await poll("the message", () => said.includes("admin: lunch is ready"));
  await service.kill();
  await poll("that it is gone", () => said.some((line) => /; again in \d+ ms$/.test(line)));
  await service.start();
  chat.reconnect();
  await poll("the gap", () => said.includes("some older messages are no longer kept"));
  chat.close();
  assert.equal(said.at(-1), "closed");
});
