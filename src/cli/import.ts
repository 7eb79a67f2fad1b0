import { setTimeout as sleep } from 'node:timers/promises';
import { type ImportLine, readImportFile } from './import-file.js';
import { type ImportJournal, type LineOutcome, openImportJournal } from './import-journal.js';
import { EXIT, type ExitCode, type Output } from './output.js';
import type { Server } from './server.js';

export interface ImportOptions {
  dryRun?: boolean;
  concurrency: number;
}

/** Longer than a server is at one import: until then one that was cut off may still end well. */
const SETTLED_AFTER_MS = 60_000;
const LOOK_AGAIN_MS = 1_000;

/** Outcomes after which the refresh token is spent, dead, or another's. */
const FINAL = new Set(['GrantRefusedError', 'RefusedByProviderError']);

interface LineReport {
  line: number;
  outcome: LineOutcome;
  error?: string;
}

/**
 * Imports the connections of a file, some at a time. What is done is kept in a journal beside the file, so that the same
 * command goes on where it was stopped or killed, and sends no token twice that an earlier run has spent.
 *
 * @returns `partial` where lines are left that another run may import.
 */
export async function importFile(
  server: Server,
  output: Output,
  path: string,
  options: ImportOptions,
): Promise<ExitCode> {
  const lines = await readImportFile(path);
  if (options.dryRun === true) return rehearse(server, output, path, lines);
  const journal = await openImportJournal(`${path}.journal`);
  try {
    return await importAll({ server, output, path, lines, journal, concurrency: options.concurrency });
  } finally {
    await journal.close();
  }
}

interface Work {
  server: Server;
  output: Output;
  path: string;
  lines: readonly ImportLine[];
  journal: ImportJournal;
  concurrency: number;
}

async function importAll({ server, output, path, lines, journal, concurrency }: Work): Promise<ExitCode> {
  const settled = (digest: string) => ['imported', 'refused'].includes(journal.last(digest)?.state ?? '');
  const open = lines.filter(({ digest }) => !settled(digest));
  const reports: LineReport[] = [];
  const bar = await startBar(output, lines.length, lines.length - open.length);
  const queue = open.values();
  const work = async () => {
    for (const line of queue) {
      const report = await importLine(server, journal, line);
      reports.push(report);
      bar.advance();
      if (report.outcome !== 'imported') output.complain(`${path}:${report.line}: ${report.outcome}: ${report.error}`);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, work));
  bar.stop();
  const count = (state: LineOutcome) => lines.filter(({ digest }) => journal.last(digest)?.state === state).length;
  const [imported, refused] = [count('imported'), count('refused')];
  const total = { imported, refused, failed: lines.length - imported - refused };
  const problems = reports.filter(({ outcome }) => outcome !== 'imported').sort((a, b) => a.line - b.line);
  output.result({ lines: lines.length, ...total, skipped: lines.length - open.length, problems }, () => {
    const again = total.failed > 0 ? '; run it again to go on' : '';
    return `${total.imported} imported, ${total.refused} refused, ${total.failed} failed of ${lines.length}${again}`;
  });
  if (total.failed > 0) return EXIT.partial;
  return total.refused > 0 ? EXIT.failed : EXIT.done;
}

/** Drawn where somebody watches. */
async function startBar(output: Output, max: number, done: number): Promise<{ advance(): void; stop(): void }> {
  if (output.json || !process.stderr.isTTY) return { advance: () => undefined, stop: () => undefined };
  const { progress } = await import('@clack/prompts');
  const bar = progress({ max, output: process.stderr });
  bar.start('importing connections');
  if (done > 0) bar.advance(done, `${done} done before`);
  return { advance: () => bar.advance(1), stop: () => bar.stop() };
}

async function importLine(server: Server, journal: ImportJournal, line: ImportLine): Promise<LineReport> {
  const { digest } = line;
  const last = journal.last(digest);
  if (last?.state === 'begun' && (await endedWell(server, line, last.at))) {
    await journal.write(digest, 'imported');
    return { line: line.line, outcome: 'imported' };
  }
  // First of all: from here on the token may be spent, whatever becomes of this process.
  await journal.write(digest, 'begun');
  const { tenantId, userId, appId, refreshToken, accessToken } = line;
  const outcome = await server.mutate<{ grant: { id: string } }>(
    'importGrant',
    { tenantId, userId, appId, refreshToken, accessToken },
    'grant { id }',
  );
  const { __typename: type, message = '' } = outcome;
  if (type.endsWith('Success')) {
    await journal.write(digest, 'imported');
    return { line: line.line, outcome: 'imported' };
  }
  // Zoom failed; where it did so after the refresh, the server goes on by itself, and the next run finds the connection.
  if (type !== 'ProviderUnavailableError') await journal.write(digest, FINAL.has(type) ? 'refused' : 'failed');
  return { line: line.line, outcome: FINAL.has(type) ? 'refused' : 'failed', error: `${message} (${type})` };
}

/** Whether an attempt whose end nobody saw has made its connection; waits as long as it still may. */
async function endedWell(server: Server, line: ImportLine, begunAt: Date): Promise<boolean> {
  for (;;) {
    if (await isConnected(server, line)) return true;
    if (Date.now() - begunAt.getTime() > SETTLED_AFTER_MS) return false;
    await sleep(LOOK_AGAIN_MS);
  }
}

async function isConnected(server: Server, { tenantId, userId, appId }: ImportLine): Promise<boolean> {
  const field = userId === null ? 'installations' : 'userConnections';
  const filter = { tenantId, appId, status: ['HEALTHY', 'DEGRADED'], ...(userId === null ? {} : { userId }) };
  const data = await server.run<Record<string, { edges: unknown[] }>>(
    `query ($filter: GrantFilter) { ${field}(first: 1, filter: $filter) { edges { node { id } } } }`,
    { filter },
  );
  return (data[field]?.edges.length ?? 0) > 0;
}

/** Looks whether tenants and apps are there; asks nothing of Zoom and spends nothing. */
async function rehearse(server: Server, output: Output, path: string, lines: readonly ImportLine[]): Promise<ExitCode> {
  const tenants = new Map<string, boolean>();
  const apps = new Map<string, string | null>();
  const problems: { line: number; error: string }[] = [];
  for (const { line, tenantId, userId, appId } of lines) {
    if (!tenants.has(tenantId)) {
      const query = `query ($id: String!) { tenant(externalId: $id) { id } }`;
      tenants.set(tenantId, (await server.run<{ tenant: unknown }>(query, { id: tenantId })).tenant !== null);
    }
    if (!apps.has(appId)) {
      const query = `query ($id: ID!) { providerApp(id: $id) { kind } }`;
      const { providerApp } = await server.run<{ providerApp: { kind: string } | null }>(query, { id: appId });
      apps.set(appId, providerApp?.kind ?? null);
    }
    const kind = apps.get(appId);
    if (tenants.get(tenantId) !== true) problems.push({ line, error: 'no such tenant' });
    if (kind === null) problems.push({ line, error: 'no such provider app' });
    else if (kind !== (userId === null ? 'ADMIN_MANAGED' : 'USER_MANAGED')) {
      problems.push({ line, error: userId === null ? 'userId is missing for this app' : 'the app is not for users' });
    }
  }
  for (const { line, error } of problems) output.complain(`${path}:${line}: ${error}`);
  output.result(
    { lines: lines.length, problems },
    () => `${lines.length} lines, ${problems.length} problems; nothing was imported`,
  );
  return problems.length === 0 ? EXIT.done : EXIT.failed;
}
