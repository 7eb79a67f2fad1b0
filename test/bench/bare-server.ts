// The yardsticks: `hello` answers a constant; `read` does one prepared SELECT by key and one AES-256-GCM open.
import { createDecipheriv } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { createServer as createHttpServer } from 'node:http';
import pg from 'pg';

const [mode, databaseUrl, keyHex] = process.argv.slice(2);

const pool = new pg.Pool({ connectionString: databaseUrl, max: 20 });
const key = Buffer.from(keyHex ?? '', 'hex');

function open(sealed: Buffer): string {
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12), { authTagLength: 16 });
  decipher.setAuthTag(sealed.subarray(-16));
  return Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]).toString('utf8');
}

const server = createHttpServer((req, res) => {
  if (mode === 'hello') {
    res.writeHead(200, { 'content-type': 'application/json' });
    res.end('{"hello":"world"}');
    return;
  }
  const id = Number(req.url?.slice(1));
  pool
    .query({ name: 'read', text: 'SELECT sealed, expires_at FROM bench_bare WHERE id = $1', values: [id] })
    .then(({ rows }) => {
      const body = JSON.stringify({ accessToken: open(rows[0].sealed), expiresAt: rows[0].expires_at });
      res.writeHead(200, { 'content-type': 'application/json' });
      res.end(body);
    })
    .catch(() => res.writeHead(500).end());
});

server.listen(0, '127.0.0.1', () => console.log(`listening ${(server.address() as AddressInfo).port}`));
