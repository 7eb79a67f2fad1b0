#!/usr/bin/env node
import { createRequire } from 'node:module';
import { env } from 'node:process';
import { CommanderError } from 'commander';
import { CliError, EXIT } from './output.js';
import { createProgram } from './program.js';

const { version } = createRequire(import.meta.url)('../../package.json') as { version: string };

/** What is said of a failure; one that nobody can mend keeps its stack. */
async function say(error: unknown): Promise<string> {
  if (error instanceof CliError) return error.message;
  const { explain } = await import('../explain.js');
  return explain(error) ?? (error instanceof Error ? (error.stack ?? error.message) : 'An unknown failure.');
}

async function run(): Promise<number | undefined> {
  const ended: { code?: number } = {};
  try {
    await createProgram({ version, env, end: (code) => void (ended.code = code) }).parseAsync();
    return ended.code;
  } catch (error) {
    // Commander has said what is wrong with the command line; help and version are no failure.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
    process.stderr.write(`${await say(error)}\n`);
    return error instanceof CliError ? error.exitCode : EXIT.failed;
  }
}

const code = await run();
// A server goes on; after any other command timers of libraries would hold the process for seconds.
if (code !== undefined) process.exit(code);
