import { gzipSync } from 'node:zlib';
import sql from 'sql-template-tag';
import { calls, connectUser, events, expire, stored, type Connection } from '../support/connections.js';
import { summary } from './client.js';
import { createCheck, type Experiment, type World } from './experiment.js';
import type { Server, Stage } from './stage.js';
import { waitUntil } from './waiting.js';
import { answerRaw, answerWith, startZoomFront, type Mangle, type ZoomFront } from './zoom-front.js';

const JSON_TYPE = 'content-type: application/json';
const MEGABYTES = 10 * 1_024 * 1_024;

/** Answers with status 200 that hold no usable tokens, though Zoom has rotated. */
const USELESS: Record<string, Mangle> = {
  'HTML page': ({ socket }) =>
    answerWith(socket, '<html><body>Just a moment</body></html>', ['content-type: text/html']),
  'no body': ({ socket }) => answerWith(socket, '', [JSON_TYPE]),
  '{}': ({ socket }) => answerWith(socket, '{}', [JSON_TYPE]),
  'JSON cut off': ({ socket, members }) => answerWith(socket, JSON.stringify(members).slice(0, -40), [JSON_TYPE]),
  'body cut off': ({ socket, members }) => {
    const text = JSON.stringify(members);
    answerRaw(socket, `HTTP/1.1 200 OK\r\n${JSON_TYPE}\r\ncontent-length: ${text.length}\r\n\r\n${text.slice(0, 100)}`);
  },
  '10 MB': ({ socket, members }) =>
    answerWith(socket, JSON.stringify({ ...members, padding: 'x'.repeat(MEGABYTES) }), [JSON_TYPE]),
  'UTF-16': ({ socket, members }) =>
    answerWith(socket, Buffer.from(JSON.stringify(members), 'utf16le'), [
      'content-type: application/json; charset=utf-16le',
    ]),
  'gzip bomb': ({ socket }) =>
    answerWith(socket, gzipSync(Buffer.alloc(MEGABYTES, ' ')), [JSON_TYPE, 'content-encoding: gzip']),
  'chunked without end': ({ socket, members }) => {
    const text = JSON.stringify(members);
    const chunk = `${text.length.toString(16)}\r\n${text}\r\n`;
    answerRaw(socket, `HTTP/1.1 200 OK\r\n${JSON_TYPE}\r\ntransfer-encoding: chunked\r\n\r\n${chunk}`, { stay: true });
  },
  'length and chunked': ({ socket, members }) => {
    const text = JSON.stringify(members);
    const framing = `content-length: ${text.length}\r\ntransfer-encoding: chunked`;
    answerRaw(socket, `HTTP/1.1 200 OK\r\n${JSON_TYPE}\r\n${framing}\r\n\r\n${text}`);
  },
};

/** Answers that break a rule of the protocol in one field; `accepted` where the written rule takes them. */
const ODD: Record<string, { accepted: boolean; change: (refreshToken: string) => Record<string, unknown> }> = {
  'no refresh_token': { accepted: true, change: () => ({ refresh_token: undefined }) },
  'the same refresh_token': { accepted: true, change: (refreshToken) => ({ refresh_token: refreshToken }) },
  'expires_in 0': { accepted: false, change: () => ({ expires_in: 0 }) },
  'expires_in -1': { accepted: false, change: () => ({ expires_in: -1 }) },
  'expires_in 10^12': { accepted: true, change: () => ({ expires_in: 1e12 }) },
  'expires_in "3600"': { accepted: true, change: () => ({ expires_in: '3600' }) },
};

/** One connection for each kind of answer, with a Zoom that takes the last refresh token once more. */
async function stageFor({ openStage }: World, names: readonly string[]) {
  let front: ZoomFront | undefined;
  const stage = await openStage({
    refreshMode: 'tolerance',
    doubt: 2,
    throughOrigin: async (origin) => {
      front = await startZoomFront(origin);
      return front.origin;
    },
  });
  const servers = await stage.startMany(3);
  const via = servers[0] as Server;
  const connections = new Map<string, Connection>();
  for (const name of names) connections.set(name, await connectUser(via));
  await expire(via, ...connections.values());
  return { stage, servers, via, front: front as ZoomFront, connections };
}

const isAt = async (via: Server, connection: Connection, version: number) =>
  (await stored(via, connection))?.version === version;

const uselessAnswers: Experiment = {
  id: 'X-14',
  injected: `Zoom rotates, and its 200 is: ${Object.keys(USELESS).join(', ')}`,
  expected:
    'each is told as unavailable, stored nowhere and in doubt; after the doubt the next answer is taken; no process ends',
  run: async (world) => {
    const check = createCheck();
    const { stage, servers, via, front, connections } = await stageFor(world, Object.keys(USELESS));
    const seen: string[] = [];
    await Promise.all(
      [...connections].map(async ([name, connection], index) => {
        front.spoil(connection.app.clientId, USELESS[name] as Mangle);
        const reading = await stage.read(servers[index % servers.length] as Server, connection);
        const row = await stored(via, connection);
        const said = `${summary([reading])}, version ${row?.version} ${row?.state}`;
        check.equal(name, said, '1 × ProviderUnavailableError PROVIDER_UNAVAILABLE, version 1 IN_DOUBT');
        seen.push(name);
      }),
    );
    for (const fingerprint of front.spoiled) stage.excused.set(fingerprint, 'unread');
    check.equal('answers that were changed', front.spoiled.length, connections.size);
    for (const [name, connection] of connections) {
      const again = () => stage.read(via, connection);
      await waitUntil(`${name} is over`, async () => (await again()).version === 2);
      check.equal(`${name}: token requests`, calls(via, connection).length, 2);
      check.equal(`${name}: events`, await events(via, connection), ['CONNECTED']);
    }
    check.that(
      servers.every(({ process }) => process.isRunning()),
      'a process ended',
    );
    await front.close();
    return check.done(
      `${seen.length} answers: unavailable, in doubt, nothing stored; then version 2 with 2 calls each`,
    );
  },
};

const lifeSeconds = async (stage: Stage, { rowId }: Connection): Promise<number> => {
  const [row] = await stage.db.query<{ seconds: number }>(sql`
    SELECT extract(epoch FROM expires_at - issued_at)::float8 AS seconds FROM credential WHERE grant_id = ${rowId}::uuid`);
  return Math.round(row?.seconds ?? 0);
};

const oddAnswers: Experiment = {
  id: 'X-18',
  injected: `an answer with: ${Object.keys(ODD).join(', ')}`,
  expected:
    'without a refresh token the old one is kept, the same one is taken; 10^12 s are cut to a day, a string of digits is taken; 0 and -1 are refused and settled like a doubt; no loop',
  run: async (world) => {
    const check = createCheck();
    const { stage, servers, via, front, connections } = await stageFor(world, Object.keys(ODD));
    const seen: string[] = [];
    await Promise.all(
      [...connections].map(async ([name, connection], index) => {
        const { accepted, change } = ODD[name] as (typeof ODD)[string];
        front.spoil(connection.app.clientId, ({ socket, members, refreshToken }) =>
          answerWith(socket, JSON.stringify({ ...members, ...change(refreshToken) }), [JSON_TYPE]),
        );
        const reading = await stage.read(servers[index % servers.length] as Server, connection);
        const wanted = accepted ? 'Credential' : 'ProviderUnavailableError';
        check.equal(name, reading.kind, wanted);
        const life = accepted ? await lifeSeconds(stage, connection) : null;
        if (life !== null) check.equal(`${name}: life`, life, name.includes('10^12') ? 86_400 : 3_600);
        seen.push(`${name} ${accepted ? `taken for ${life} s` : 'refused'}`);
      }),
    );
    for (const fingerprint of front.spoiled) stage.excused.set(fingerprint, 'kept');
    for (const [name, connection] of connections) {
      const { accepted } = ODD[name] as (typeof ODD)[string];
      // What was taken must serve for one more refresh; what was refused is asked for again by itself.
      if (accepted) await expire(via, connection);
      const version = accepted ? 3 : 2;
      await waitUntil(`${name} is renewed`, async () => {
        await stage.read(via, connection);
        return isAt(via, connection, version);
      });
      check.equal(`${name}: token requests`, calls(via, connection).length, 2);
    }
    await front.close();
    return check.done(`${seen.join(', ')}; each refreshes again, 2 calls each`);
  },
};

export const answers: readonly Experiment[] = [uselessAnswers, oddAnswers];
