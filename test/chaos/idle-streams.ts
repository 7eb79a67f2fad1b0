import { readdir, readFile } from 'node:fs/promises';
import { openSse, openWebSocket, type ResultStream } from '../support/streams.js';
import { connectUser } from '../support/connections.js';
import { createCheck, type Experiment } from './experiment.js';
import type { Server } from './stage.js';
import { pass, waitUntil } from './waiting.js';

const STREAMS = 500;
const AT_ONCE = 50;
const SETTLE_SECONDS = 15;
const SECONDS = 60;
const MAX_MB_PER_MINUTE = 1;

const openFiles = async ({ process }: Server): Promise<number> => (await readdir(`/proc/${process.pid}/fd`)).length;

/** What is in memory once what nobody holds is gone. */
async function residentMb({ process }: Server): Promise<number> {
  process.signal('SIGUSR2');
  await pass(0.5);
  const status = await readFile(`/proc/${process.pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1_024;
}

/** The line through the points that is nearest to them: its rise for each minute. */
function slopePerMinute(points: readonly { minute: number; mb: number }[]): number {
  const mean = (of: (point: { minute: number; mb: number }) => number) =>
    points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const [minute, mb] = [mean((point) => point.minute), mean((point) => point.mb)];
  const rise = mean((point) => (point.minute - minute) * (point.mb - mb));
  return rise / mean((point) => (point.minute - minute) ** 2);
}

async function openAll(server: Server): Promise<ResultStream[]> {
  const streams: ResultStream[] = [];
  const query = 'subscription { healthChanged { reason } }';
  for (const open of [openWebSocket, openSse]) {
    for (let opened = 0; opened < STREAMS; opened += AT_ONCE) {
      const given = { adminKey: server.adminKey };
      streams.push(...(await Promise.all(Array.from({ length: AT_ONCE }, () => open(server.url, query, given)))));
    }
  }
  return streams;
}

const idle: Experiment = {
  id: 'X-32',
  injected: `${STREAMS} WebSockets and ${STREAMS} event streams that nothing happens on, for ${SECONDS} s, at one process`,
  expected: `resident memory, after collection, rises by less than ${MAX_MB_PER_MINUTE} MB a minute; a file for each connection and no more; then all of them get an event; afterwards their files are closed`,
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage();
    const server = await stage.start({ preloads: ['collect.mjs'], flags: ['--expose-gc'] });
    await connectUser(server);
    const before = await openFiles(server);
    const streams = await openAll(server);
    // A client of the WebSocket protocol connects with its first wish for a result.
    const results = streams.map((stream) => stream.next());
    await waitUntil('all are connected', async () => (await openFiles(server)) >= before + 2 * STREAMS);
    await pass(SETTLE_SECONDS);
    const points: { minute: number; mb: number }[] = [];
    const files: number[] = [];
    const startedAt = performance.now();
    while (performance.now() - startedAt < SECONDS * 1_000) {
      points.push({ minute: (performance.now() - startedAt) / 60_000, mb: await residentMb(server) });
      files.push(await openFiles(server));
      await pass(2);
    }
    const slope = slopePerMinute(points);
    await connectUser(server);
    const got = (await Promise.all(results)).filter((result) => result?.data?.healthChanged.reason === 'CONNECTED');
    await Promise.all(streams.map((stream) => stream.close()));
    await waitUntil('their files are closed', async () => (await openFiles(server)) <= before + 30);
    check.that(slope < MAX_MB_PER_MINUTE, `memory rises by ${slope.toFixed(2)} MB a minute`);
    const most = Math.max(...files) - before;
    check.that(most <= 2 * STREAMS + 30, `${most} files more`);
    check.equal('streams that got the event', got.length, 2 * STREAMS);
    const mb = points.map((point) => point.mb);
    return check.done(
      `${slope.toFixed(2)} MB a minute (${mb[0]?.toFixed(0)} to ${mb.at(-1)?.toFixed(0)} MB, ${points.length} samples), at most ${most} files more, ${got.length} got the event, ${(await openFiles(server)) - before} files more afterwards`,
    );
  },
};

export const idleStreams: readonly Experiment[] = [idle];
