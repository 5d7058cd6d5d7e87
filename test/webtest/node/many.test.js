// Channels and ids that would make an address of over 8 KiB.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { chatd, freePort, open, poll, proxy, scripted, token, welcome } from "./service.js";

const hundred = Array.from({ length: 100 }, (_, i) => `tenant-${String(i).padStart(2, "0")}.team.notifications:region:eu-central-1`);

/** An nginx with its own default buffers before a service. */
async function nginx(t, port) {
  const dir = await mkdtemp(join(tmpdir(), "webtest-nginx-"));
  const at = await freePort();
  await writeFile(join(dir, "nginx.conf"), `
    pid ${dir}/pid; error_log ${dir}/error.log; worker_processes 1; events {}
    http {
      access_log off;
      map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
      server {
        listen 127.0.0.1:${at} ssl; ssl_certificate ${process.env.TLS_CERT}; ssl_certificate_key ${process.env.TLS_KEY};
        location / {
          proxy_pass https://127.0.0.1:${port}; proxy_http_version 1.1; proxy_set_header Host $http_host;
          proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
        }
      }
    }`);
  const server = spawn("nginx", ["-p", dir, "-c", join(dir, "nginx.conf"), "-e", join(dir, "error.log"), "-g", "daemon off;"], { stdio: "ignore" });
  t.after(async () => {
    server.kill("SIGTERM");
    await once(server, "exit");
    await rm(dir, { recursive: true });
  });
  let up = false;
  await poll("nginx", () => up, () => new Promise((resolve) => {
    const socket = net.connect(at, "127.0.0.1", () => { up = true; socket.destroy(); resolve(); }).on("error", resolve);
  }));
  return `https://127.0.0.1:${at}/`;
}

describe("many channels", { concurrency: true }, () => {
  test("a hundred channels are resumed through nginx, whenever the connection breaks", async (t) => {
    const service = await chatd(t);
    const between = await proxy(t, service.port);
    const url = await nginx(t, between.url.match(/:(\d+)/)[1]);
    const eva = open(t, url, { token: token("eva"), channels: hundred });
    await eva.nth("open");
    assert.deepEqual([eva.chat.channels, eva.chat.since.length], [hundred, 102]);
    for (let round = 1; round <= 4; round++) {
      between.refuse();
      for (const channel of hundred) await service.publish(`${round}`, channel);
      between.refuse(false);
      // Not all of them are joined again by then, but for the last time.
      await eva.until("some", () => eva.contents(hundred[round === 4 ? 99 : 3 + 20 * round])?.includes(`${round}`) || eva.of("open").length > round);
    }
    await eva.until("all", () => hundred.every((channel) => eva.contents(channel).length === 4));
    for (const channel of hundred) assert.deepEqual(eva.contents(channel), ["1", "2", "3", "4"]);
    for (const channel of hundred) await service.publish("live", channel);
    await eva.until("all", () => hundred.every((channel) => eva.contents(channel).at(-1) === "live"));
    assert.deepEqual(eva.of("gap"), []);
    assert.ok(eva.of("open").slice(1).every(({ resumed }) => resumed));
    assert.equal(eva.of("waiting").filter(({ error }) => error.code === 4005).length, 0);

    const later = open(t, url, { token: token("eva"), channels: eva.chat.channels, since: eva.chat.since });
    assert.equal((await later.nth("open")).resumed, true);
  });

  test("joins are cut off before any is answered, and nothing is lost", async (t) => {
    const asked = [];
    const message = (channel, n) => JSON.stringify({ type: "message", id: `${n}-e-${channel}`, channel, sender: "", content: `${n}`, time: "2026-11-24T12:00:00.000Z" });
    const service = await scripted(t, {
      socket(socket, n, request) {
        const { searchParams, search } = new URL(request.url, "https://localhost");
        assert.ok(search.length < 2048, `${search.length}`);
        const inAddress = searchParams.getAll("channel");
        socket.send(welcome({ since: ["0-e", "0-e-@ana", ...inAddress.map((name) => `0-e-${name}`)], recovered: n > 1 || undefined }));
        socket.on("message", (frame) => {
          const { type, ref, channel, since } = JSON.parse(frame);
          assert.equal(type, "join");
          if (n === 2) {
            socket.send(message(channel, 1)); // and no answer
            socket.terminate();
            return;
          }
          if (channel === hundred[99] || asked.length === 0) asked.push(since);
          if (n === 3 && since === `0-e-${channel}`) socket.send(message(channel, 1));
          socket.send(JSON.stringify({ type: "ack", ref, since: `${n === 1 ? 0 : 1}-e-${channel}`, ...(since && { recovered: true }) }));
          if (n === 1 && channel === hundred[99]) socket.close(1001);
        });
      },
    });
    const ana = open(t, service.url, { token: "t", channels: hundred });
    await ana.nth("open", 2);
    assert.deepEqual(asked.slice(-2), [undefined, `0-e-${hundred[99]}`]);
    for (const channel of hundred.slice(-80)) assert.deepEqual(ana.contents(channel), ["1"]);
    assert.deepEqual(ana.of("open").map(({ resumed }) => resumed), [undefined, true]);
  });

  test("a channel that is joined late and cannot go on is a gap", async (t) => {
    const service = await chatd(t, { args: ["-history-count", "3"] });
    const between = await proxy(t, service.port);
    const ana = open(t, between.url, { token: token("ana", { role: "admin" }), channels: hundred });
    await ana.nth("open");
    await service.publish("the first", hundred[99]);
    await ana.message("the first");
    between.refuse();
    for (let i = 1; i <= 10; i++) await service.publish(`${i}`, hundred[99]);
    between.refuse(false);
    assert.equal((await ana.nth("open", 2)).resumed, false);
    await service.publish("live", hundred[99]);
    await ana.message("live");
    assert.deepEqual(ana.of("gap"), [{ channel: hundred[99] }]);
    assert.deepEqual(ana.contents(hundred[99]).slice(-1), ["live"]);
    const types = ana.told.map(({ type }) => type).filter((type) => ["open", "gap", "message"].includes(type));
    assert.ok(types.lastIndexOf("open") < types.indexOf("gap") && types.indexOf("gap") < types.lastIndexOf("message"), `${types}`);
  });

  test("channels are left and joined while they are being joined again", async (t) => {
    const service = await chatd(t);
    const between = await proxy(t, service.port);
    const eva = open(t, between.url, { token: token("eva"), channels: hundred });
    await eva.nth("open");
    between.refuse();
    await service.publish("for nobody", hundred[98]);
    await service.publish("missed", hundred[99]);
    const asked = [eva.chat.leave(hundred[98]), eva.chat.join(hundred[99])];
    between.refuse(false);
    await Promise.all(asked);
    assert.equal((await eva.nth("open", 2)).resumed, true);
    await eva.message("missed");
    await service.publish("for nobody", hundred[98]);
    await service.publish("live", hundred[97]);
    await eva.message("live");
    assert.deepEqual(eva.of("message").map(({ content }) => content), ["missed", "live"]);
    assert.deepEqual(eva.chat.channels, hundred.filter((name) => name !== hundred[98]));
  });

  for (const [code, kind, ends] of [["forbidden", "forbidden", true], ["invalid", "invalid", true], ["unavailable", "unavailable", false], ["rate_limited", "", false]]) {
    test(`a late join that is answered with ${code} ${ends ? "is the end" : "is made again"}`, async (t) => {
      let refused = 0;
      const service = await scripted(t, {
        socket(socket, n, request) {
          const inAddress = new URL(request.url, "https://localhost").searchParams.getAll("channel");
          socket.send(welcome({ since: ["0-e", "0-e-@ana", ...inAddress.map((name) => `0-e-${name}`)] }));
          socket.on("message", (frame) => {
            const { ref, channel } = JSON.parse(frame);
            if (channel === hundred[60] && !refused++) socket.send(JSON.stringify({ type: "error", ref, code, message: "no" }));
            else socket.send(JSON.stringify({ type: "ack", ref, since: `0-e-${channel}` }));
          });
        },
      });
      const ana = open(t, service.url, { token: "t", channels: hundred.slice(0, 61) });
      const { error } = await (ends ? ana.nth("close") : code === "unavailable" ? ana.nth("waiting") : ana.nth("open").then(() => ({ error: { kind: "" } })));
      assert.equal(error.kind, kind);
      if (kind) assert.ok(error.message.includes(hundred[60]), error.message);
      if (!ends) await ana.nth("open");
      assert.equal(ana.of("open").length, ends ? 0 : 1);
    });
  }

  for (const status of [414, 431, 400, 404, 405, 410]) {
    test(`refused with ${status} it has ended`, async (t) => {
      const service = await scripted(t, {
        upgrade: () => [status],
        answer(request, response) { response.writeHead(status, { "Content-Type": "text/html" }).end("<h1>No</h1>"); },
      });
      const { error } = await open(t, service.url, { token: "t", channels: ["ops"] }).nth("close");
      assert.equal(error.code, status);
      if (status === 414 || status === 431) assert.match(error.message, /longer than a proxy/);
    });
  }
});
