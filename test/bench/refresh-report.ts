import { drawChart } from './chart.js';
import { median } from './measure.js';
import type { describeMachine } from './refresh-machine.js';
import type { Counts, Round } from './refresh-round.js';
import type { Storm } from './refresh-storm.js';

type Machine = Awaited<ReturnType<typeof describeMachine>>;

/** Life of the tokens of the endpoint, the standard margin, and the middle of what is added to that at random. */
const LIFE_SECONDS = 3_600;
const MARGIN_SECONDS = 600;
const MEAN_JITTER_SECONDS = MARGIN_SECONDS * 0.1;

interface Settings {
  grants: number;
  concurrency: number;
  rounds: number;
  seconds: number;
  warmUpSeconds: number;
}

const COLUMNS: [string, number, (round: Round) => number][] = [
  ['cpu µs', 0, (round) => round.cpuMicros],
  ['postgres µs', 0, (round) => round.postgresMicros],
  ['endpoint µs', 0, (round) => round.endpointMicros],
  ['RSS MB', 0, (round) => round.residentMegabytes],
  ['others cpu', 2, (round) => round.othersShare],
  ['load', 1, (round) => round.load],
];

export function printRounds(machine: Machine, settings: Settings, rounds: Record<string, Round[]>): void {
  const { grants, concurrency, seconds, warmUpSeconds } = settings;
  console.log(
    `\n${machine.cpus} × ${machine.model}, Node ${machine.node}, PostgreSQL ${machine.postgres} (fsync ${machine.fsync}, synchronous_commit ${machine.synchronousCommit})`,
  );
  console.log(
    `Medians of ${settings.rounds} alternating rounds of ${seconds} s after ${warmUpSeconds} s; ${grants} grants, ${concurrency} at once; token endpoint and PostgreSQL share the machine\n`,
  );
  console.log(
    `${'variant'.padEnd(22)} ${'refreshes/s'.padStart(12)} ${'of bare'.padStart(8)} ${COLUMNS.map(([name]) => name.padStart(12)).join('')}`,
  );
  const bare = rounds['bare loop'] ?? [];
  for (const [name, measured] of Object.entries(rounds)) {
    const rate = median(measured.map((round) => round.perSecond));
    // Each round beside the bare loop's of the same turn: what else ran on the machine then hit both.
    const ratio = median(measured.map((round, index) => round.perSecond / (bare[index]?.perSecond ?? Number.NaN)));
    const cells = COLUMNS.map(([, digits, pick]) => median(measured.map(pick)).toFixed(digits).padStart(12)).join('');
    console.log(`${name.padEnd(22)} ${rate.toFixed(0).padStart(12)} ${ratio.toFixed(2).padStart(8)} ${cells}`);
  }
}

export function printStorm(storm: Storm, counts: Record<string, Counts>): void {
  const rate = storm.grants / storm.seconds;
  const most = Math.max(...storm.samples.map(({ lagSeconds }) => lagSeconds));
  console.log(
    `\n${storm.grants} grants due at one moment, ${storm.lifeLeftSeconds} s before their tokens expire: all renewed after ${storm.seconds.toFixed(0)} s (${rate.toFixed(0)}/s), ${storm.expired} expired before; longest overdue ${most.toFixed(0)} s`,
  );
  for (const [name, { count, twice, unknown }] of Object.entries(counts)) {
    console.log(`${name}: ${count} refreshes in all, ${twice} tokens sent twice, ${unknown} unknown`);
  }
  const period = LIFE_SECONDS - MARGIN_SECONDS - MEAN_JITTER_SECONDS;
  const whole = (value: number) => Math.round(value).toLocaleString('en').replaceAll(',', ' ');
  console.log(
    `\nOne machine can hold: grants = rate × (token life - margin - mean jitter) = ${whole(rate)}/s × (${LIFE_SECONDS} - ${MARGIN_SECONDS} - ${MEAN_JITTER_SECONDS}) s = ${whole(rate * period)}, at full load`,
  );
  console.log(
    `All due at one moment: grants = rate × margin = ${whole(rate)}/s × ${MARGIN_SECONDS} s = ${whole(rate * MARGIN_SECONDS)} are renewed before the first token expires`,
  );
}

export function drawStorm(storm: Storm, machine: Machine): string {
  const points = (pick: (sample: Storm['samples'][number]) => number) =>
    storm.samples.map((sample) => ({ x: sample.seconds, y: pick(sample) }));
  return drawChart(
    `${storm.grants.toLocaleString('en').replaceAll(',', ' ')} grants due at one moment`,
    `One process, ${machine.cpus} CPUs shared with PostgreSQL and the token endpoint; tokens expire at ${storm.lifeLeftSeconds} s, ${storm.expired} expired`,
    [
      { title: 'Still to renew', unit: 'grants', colour: '#0b62a4', points: points((sample) => sample.remaining) },
      {
        title: 'Longest overdue',
        unit: 's',
        colour: '#c0392b',
        points: points((sample) => sample.lagSeconds),
      },
    ],
  );
}
