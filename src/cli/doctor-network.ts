import type { Config } from '../config.js';
import { deploymentNames } from '../domain/deployment.js';
import { failed, type Finding, passed, warned } from './doctor-finding.js';

const DEADLINE_MS = 5_000;
/** No app has it: keys of apps are random. */
const NO_APP = 'latchkey-doctor';

/** Comes in by the public URL, as browsers and Zoom do. */
export async function findNetworkTroubles(config: Config): Promise<Finding[]> {
  const url = config.publicUrl ?? `http://localhost:${config.port}`;
  const alive = await ask(`${url}/livez`, 'GET');
  if (alive === null || alive.status !== 200 || !alive.text.includes('"live"')) {
    const detail = `${url} ${alive === null ? 'does not answer' : `answers ${alive.status} to /livez, and not as Latchkey`}`;
    const remedy = 'Start the server, and have DNS, TLS and the proxy of LATCHKEY_PUBLIC_URL lead to it.';
    return [failed('public URL', detail, remedy)];
  }
  return [await examineReadiness(url), await examineWebhooks(url, config)];
}

async function examineReadiness(url: string): Promise<Finding> {
  const ready = await ask(`${url}/readyz`, 'GET');
  if (ready?.status === 200) return passed('public URL', `${url} answers and is ready`);
  const remedy = 'latchkey_not_ready at /metrics tells the reason; see docs/operations.md.';
  return failed('public URL', `${url} answers and is not ready`, remedy);
}

async function examineWebhooks(url: string, config: Config): Promise<Finding> {
  const answer = await ask(`${url}/webhooks/zoom/${NO_APP}`, 'POST');
  if (answer?.status !== 404 || !answer.isJson) {
    const detail = answer === null ? 'no answer' : `${answer.status} instead of an answer of Latchkey`;
    const remedy =
      'Let the proxy pass POST /webhooks/zoom/ on as it is, without authentication, and run a server of role all or api.';
    return failed('webhooks', detail, remedy);
  }
  if (deploymentNames({ deploymentId: null, publicUrl: url }).publicUrl === null) {
    const remedy =
      'Zoom needs an address on the internet: set LATCHKEY_PUBLIC_URL to a proxy or tunnel that leads here.';
    return config.production
      ? failed('webhooks', 'Zoom cannot reach loopback', remedy)
      : warned('webhooks', 'only this machine reaches loopback', remedy);
  }
  return passed('webhooks', `${url}/webhooks/zoom/ answers`);
}

interface Told {
  status: number;
  text: string;
  isJson: boolean;
}

async function ask(url: string, method: string): Promise<Told | null> {
  try {
    const response = await fetch(url, { method, redirect: 'manual', signal: AbortSignal.timeout(DEADLINE_MS) });
    const isJson = response.headers.get('content-type')?.includes('json') === true;
    return { status: response.status, text: (await response.text()).slice(0, 1_000), isJson };
  } catch {
    return null;
  }
}
