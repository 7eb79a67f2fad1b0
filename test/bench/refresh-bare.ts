// The yardstick: the least a refresh can be. Opens the stored token, sends it, seals the two new ones, and stores them
// with one prepared UPDATE. No lease, no spool, no tenants; what is due is in memory before the clock starts.
import { createCipheriv, createDecipheriv, randomFillSync } from 'node:crypto';
import pg from 'pg';
import { Agent, request } from 'undici';

const [databaseUrl, keyHex = '', tokenUrl = '', concurrency] = process.argv.slice(2);
const key = Buffer.from(keyHex, 'hex');
const pool = new pg.Pool({ connectionString: databaseUrl, max: 20 });
const dispatcher = new Agent({ connections: 100, pipelining: 1 });
const headers = {
  authorization: `Basic ${Buffer.from('client:secret').toString('base64')}`,
  'content-type': 'application/x-www-form-urlencoded',
};

interface Due {
  id: string;
  version: number;
  refresh: Buffer;
}

let due: Due[] = [];
let isRunning = false;
let running = Promise.resolve();

function seal(text: string): Buffer {
  const nonce = randomFillSync(Buffer.allocUnsafe(12));
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
  return Buffer.concat([nonce, cipher.update(text), cipher.final(), cipher.getAuthTag()]);
}

function open(sealed: Buffer): string {
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12), { authTagLength: 16 });
  decipher.setAuthTag(sealed.subarray(-16));
  return Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]).toString('utf8');
}

async function refresh({ id, version, refresh: sealed }: Due): Promise<void> {
  const form = new URLSearchParams({ grant_type: 'refresh_token', refresh_token: open(sealed) }).toString();
  const { body } = await request(tokenUrl, { method: 'POST', dispatcher, headers, body: form });
  const tokens = (await body.json()) as { access_token: string; refresh_token: string; expires_in: number };
  const { rowCount } = await pool.query({
    name: 'store',
    text: `UPDATE bench_bare SET version = version + 1, access = $3, refresh = $4,
      expires_at = now() + make_interval(secs => $5), due_at = NULL WHERE id = $1 AND version = $2`,
    values: [id, version, seal(tokens.access_token), seal(tokens.refresh_token), tokens.expires_in],
  });
  if (rowCount !== 1) throw new Error('The version has changed');
}

async function work(): Promise<void> {
  for (let next = due.pop(); next !== undefined && isRunning; next = due.pop()) await refresh(next);
}

async function run(): Promise<void> {
  isRunning = true;
  await Promise.all(Array.from({ length: Number(concurrency) }, work));
}

async function load(): Promise<void> {
  const { rows } = await pool.query<Due>(
    'SELECT id, version, refresh FROM bench_bare WHERE due_at <= now() ORDER BY due_at',
  );
  due = rows.toReversed();
}

async function stop(): Promise<void> {
  isRunning = false;
  await running;
}

/** Each order is answered when it is carried out; `run` at once. A failure ends the process. */
async function obey(order: 'load' | 'run' | 'stop'): Promise<void> {
  if (order === 'run') running = run();
  else await { load, stop }[order]();
  process.send?.(order);
}

process.on('message', (order: 'load' | 'run' | 'stop') => void obey(order));
process.once('disconnect', () => process.exit(0));
