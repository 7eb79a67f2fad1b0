import { styleText } from 'node:util';

/** What the process ends with. */
export const EXIT = {
  done: 0,
  /** It was refused, failed, or a check did not pass. */
  failed: 1,
  /** The command line or an input file is wrong; nothing was done. */
  usage: 2,
  /** Some of it was done; running it again goes on. */
  partial: 3,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** Something that the person at the terminal can mend; the message says how, and holds no secret. */
export class CliError extends Error {
  readonly exitCode: ExitCode;

  constructor(message: string, exitCode: ExitCode = EXIT.failed) {
    super(message);
    this.name = 'CliError';
    this.exitCode = exitCode;
  }
}

/** Where a command writes: results to standard output, everything else to standard error. */
export interface Output {
  json: boolean;
  /** The one result of a command: as JSON where that is asked for, otherwise as `text` says. */
  result(data: unknown, text: () => string): void;
  /** For the person who watches; left out of JSON output. */
  note(text: string): void;
  /** The same whatever the form of output. */
  complain(text: string): void;
}

export function createOutput(json: boolean): Output {
  return {
    json,
    result: (data, text) => void process.stdout.write(`${json ? JSON.stringify(data, null, 2) : text()}\n`),
    note: (text) => {
      if (!json) process.stderr.write(`${text}\n`);
    },
    complain: (text) => void process.stderr.write(`${text}\n`),
  };
}

type Style = Parameters<typeof styleText>[0];

/** Coloured where a terminal shows it. */
export const styled = (style: Style, text: string): string => (process.stdout.isTTY ? styleText(style, text) : text);

/** Columns as wide as their widest cell. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return 'none';
  const lines = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  return lines
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
