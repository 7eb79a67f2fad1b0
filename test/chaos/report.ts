import { cpus, loadavg, totalmem } from 'node:os';
import type { Observation } from './experiment.js';

export interface Result extends Observation {
  id: string;
  injected: string;
  expected: string;
  seconds: number;
  /** What the servers wrote, for whoever looks for the cause of a failure. */
  outputs: string[];
}

/** Experiments that this suite does not run, and why. */
const NOT_RUN: readonly [id: string, why: string][] = [
  ['X-11', 'Redis that is stopped, flushed or asleep is an ordinary test, `test/postgres/wake-up.test.ts`'],
  ['X-24', 'root keys that are away are an ordinary test, `test/root-key-outage.test.ts`'],
  ['X-31', 'sockets that are cut are an ordinary test, `test/postgres/event-delivery.test.ts`'],
  ['X-34', 'a restored and a cloned database are an ordinary test, `test/postgres/clone.test.ts`'],
  ['X-35', 'an audit trail that cannot be written is an ordinary test, `test/audit-reads.test.ts`'],
];

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

/** One row of the table; what is not as expected follows what was observed. */
export function tableRow({ id, injected, expected, observed, problems, seconds }: Result): string {
  const outcome = problems.length === 0 ? 'ok' : 'FAILED';
  const seen = [observed, ...problems.map((problem) => `**${problem}**`)].join('; ');
  return `| ${[id, injected, expected, seen, outcome, seconds.toFixed(1)].map(cell).join(' | ')} |`;
}

/** The whole document, as the command writes it. */
export function markdown(
  results: readonly Result[],
  run: { seed: number; rounds: number; seconds: number; now?: Date },
): string {
  const failed = results.filter(({ problems }) => problems.length > 0).length;
  const [processor] = cpus();
  const gigabytes = (totalmem() / 2 ** 30).toFixed(0);
  return `# Fault injection

Written by \`npm run chaos\`. Each experiment breaks three processes of the built server, PostgreSQL, or Zoom's sandbox in
one way and compares what comes of it with what must. Afterwards everything is healed and its whole history checked:

- I1: no refresh token was sent twice, unless its first use was in doubt, and then only after the doubt was waited for.
- I2: no caller got a token that was fenced off: one token for each version, and no version after a newer one.
- I3: fences and versions only grow. The database itself notes every change.
- I4: each change of health has exactly one event, in the same transaction; sequences have no gap.
- I5: no secret of the sandbox is in any output, answer, table or file.
- I6: nothing is left in the middle; each connection has a token that Zoom takes, or a reason and its event.

- Date: ${(run.now ?? new Date()).toISOString()}
- Seed ${run.seed}, ${run.rounds} rounds
- Machine: ${cpus().length} × ${processor?.model.trim() ?? 'unknown'}, ${gigabytes} GB, load ${loadavg()[0]?.toFixed(1)}
- Node ${process.version}, ${process.platform} ${process.arch}
- ${results.length} experiments run, ${results.length - failed} ok, ${failed} failed, in ${run.seconds.toFixed(0)} s

<!-- prettier-ignore-start -->

| Id | Injected | Expected | Observed | Result | Seconds |
| -- | -------- | -------- | -------- | ------ | ------- |
${results.map(tableRow).join('\n')}

<!-- prettier-ignore-end -->

Not run:

${NOT_RUN.map(([id, why]) => `- ${id}: ${why}.`).join('\n')}
`;
}
