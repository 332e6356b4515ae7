// Debian's chromium, driven from Node, and a server on this machine that it gets its page and images from.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import { chromium } from "playwright-core";

const PROGRAM = "/usr/bin/chromium";

const hasChromium = existsSync(PROGRAM);
const hasQemu = spawnSync("qemu-img", ["--version"], { stdio: "ignore" }).error === undefined;
for (const [has, variable, program] of [
  [hasChromium, "BLOCKLAYER_REQUIRE_CHROMIUM", PROGRAM],
  [hasQemu, "BLOCKLAYER_REQUIRE_QEMU", "qemu-img"],
]) {
  if (has || process.env[variable] === undefined) continue;
  throw new Error(`${variable} is set, and ${program} is not there`);
}

/** Whether chromium and qemu-img are here. With the variables above, the absence of one is an error. */
export const hasPeers = hasChromium && hasQemu;

/** Nothing leaves the machine, and the super-user may run it. */
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/**
 * Opens a page with a program.
 *
 * @param {string} program - a module
 * @param {string} profileFolder - empty
 * @param {Map<string, Uint8Array>} files - by path; what the page sends is put here
 * @returns the page, and what closes all
 */
export async function openPage(program, profileFolder, files) {
  const server = createServer((request, response) => answer(request, response, program, files));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const context = await chromium
    .launchPersistentContext(profileFolder, {
      executablePath: PROGRAM,
      headless: true,
      args: FLAGS,
    })
    .catch((error) => {
      server.close();
      throw error;
    });
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  // A name that is this machine: only there may a page without TLS have `crypto.subtle`.
  await page.goto(`http://localhost:${server.address().port}/`);
  await page
    .waitForFunction(() => globalThis.page !== undefined)
    .catch((error) => {
      throw new Error(`the page did not start: ${errors.join("; ") || String(error)}`);
    });
  const close = async () => {
    await context.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return { page, close };
}

function answer(request, response, program, files) {
  if (request.method === "POST") {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
      files.set(request.url, Buffer.concat(parts));
      response.end();
    });
    return;
  }
  const file = files.get(request.url);
  if (request.url === "/")
    send("text/html", '<!doctype html><script type="module" src="/page.js"></script>');
  else if (request.url === "/page.js") send("text/javascript", program);
  else if (file !== undefined) send("application/octet-stream", file);
  else response.writeHead(404).end();

  function send(type, body) {
    response.writeHead(200, { "content-type": type }).end(body);
  }
}
