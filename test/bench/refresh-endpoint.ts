// A token endpoint that costs as little as node:http allows. Each path `/<name>/oauth/token` has tokens and counts of
// its own; a refresh token carries a serial number, so that one that is sent twice is noticed for the price of a byte.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { serialOf, serialToken } from './refresh-tokens.js';

/** Serial numbers below this are those of seeded tokens. */
const firstSerial = Number(process.argv[2]);
const SCOPE = 'user:read:user';
const PARAMETER = 'refresh_token=';

interface Ledger {
  sent: Uint8Array;
  next: number;
  count: number;
  twice: number;
  unknown: number;
}

const ledgers = new Map<string, Ledger>();

function ledgerOf(name: string): Ledger {
  let ledger = ledgers.get(name);
  if (ledger === undefined) {
    ledger = { sent: new Uint8Array(firstSerial + 20_000_000), next: firstSerial, count: 0, twice: 0, unknown: 0 };
    ledgers.set(name, ledger);
  }
  return ledger;
}

function answer(ledger: Ledger, body: string): string {
  const at = body.indexOf(PARAMETER);
  const serial = at < 0 ? Number.NaN : serialOf(body, at + PARAMETER.length);
  ledger.count += 1;
  if (!(serial < ledger.next)) ledger.unknown += 1;
  else if (ledger.sent[serial] === 1) ledger.twice += 1;
  else ledger.sent[serial] = 1;
  const refresh = serialToken(ledger.next);
  ledger.next += 1;
  // Access tokens need no serial number of their own.
  return `{"access_token":"A${refresh.slice(1)}","token_type":"bearer","refresh_token":"${refresh}","expires_in":3600,"scope":"${SCOPE}"}`;
}

const server = createServer((req, res) => {
  const [, name = '', action] = req.url?.split('/') ?? [];
  const ledger = ledgerOf(name);
  if (action === 'counts') {
    const { count, twice, unknown } = ledger;
    res.end(JSON.stringify({ count, twice, unknown }));
    return;
  }
  let body = '';
  req.setEncoding('latin1');
  req.on('data', (chunk: string) => (body += chunk));
  req.on('end', () => {
    const text = answer(ledger, body);
    res.writeHead(200, { 'content-type': 'application/json', 'content-length': text.length });
    res.end(text);
  });
});
server.keepAliveTimeout = 3_600_000;
server.listen(0, '127.0.0.1', () => console.log(`listening ${(server.address() as AddressInfo).port}`));
