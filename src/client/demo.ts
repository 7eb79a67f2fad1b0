import { randomBytes } from 'node:crypto';
import { playConnecting } from './connecting.js';
import { playEnding } from './ending.js';
import { createGraphQLClient, OperationRefusedError } from './graphql-client.js';
import { playOpening } from './opening.js';
import { createReport } from './report.js';
import { readSettings } from './settings.js';
import type { Props, Stage } from './stage.js';
import { createZoomMarketplace } from './zoom-marketplace.js';

/**
 * Plays the whole story against a running server, as an outside client: everything goes over HTTP and WebSocket. Ends
 * with exit code 1 at the first thing that is not as it has to be. Prints no secret.
 */
async function play(): Promise<void> {
  const { env, stdout } = process;
  const report = createReport({ color: stdout.isTTY && !env['NO_COLOR'] });
  const started = performance.now();
  let props: Props | undefined;
  try {
    const { url, adminKey, sandboxUrl } = await readSettings(env);
    const stage: Stage = {
      url,
      sandboxUrl,
      latchkey: createGraphQLClient(url, adminKey),
      zoom: createZoomMarketplace(sandboxUrl),
      runId: randomBytes(3).toString('hex'),
    };
    report.line(`Latchkey demo\n`);
    props = await playOpening(stage, report);
    const made = await playConnecting(stage, props, report);
    await playEnding(stage, props, made, report);
    const seconds = ((performance.now() - started) / 1_000).toFixed(1);
    report.line(`\nAll as it has to be, in ${seconds} s. Look around: tenant "${props.tenantId}" at ${url}/graphql`);
  } catch (error) {
    report.problem(explain(error));
    process.exitCode = 1;
  } finally {
    await props?.alerts.close();
  }
}

/** The failure in one line, with advice where the cause is known. */
function explain(error: unknown): string {
  if (!(error instanceof Error)) return 'Something that is no error was thrown.';
  if (error instanceof OperationRefusedError && error.status === 401) {
    return `${error.message}\nThe server does not know the admin key: set LATCHKEY_ADMIN_KEY, or LATCHKEY_DATA_DIR to its data folder.`;
  }
  const { code } = (error.cause ?? {}) as { code?: string };
  if (code === 'ECONNREFUSED' || code === 'ENOTFOUND' || code === 'EHOSTUNREACH') {
    return `Nobody answers (${code}). Start a server with "npm start"; set LATCHKEY_URL and LATCHKEY_SANDBOX_URL if it is not at the usual ports.`;
  }
  return error.message;
}

await play();
