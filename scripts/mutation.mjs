// npm run test:mutation [-- GROUP ...]: runs the mutants of the vault, group by group, and writes what came of them into the
// table of docs/mutation.md. Fails where a group's tests find less than 95 %. With --figures it writes the table alone, of the
// reports that there are.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { GROUPS } from '../test/mutation/groups.mjs';
import { root, run } from './run.mjs';

const PAGE = join(root, 'docs/mutation.md');
const TABLE = /(<!-- figures -->\n)[^]*(<!-- end of figures -->)/;

const chosen = process.argv.slice(2);
const all = chosen.length > 0 ? chosen : Object.keys(GROUPS);
const names = all.includes('--figures') ? [] : all;
let failed = 0;
for (const name of names) {
  const env = { MUTATION_GROUP: name };
  const { ok } = await run('stryker run test/mutation/stryker.config.mjs', { env, inherit: true });
  if (!ok) failed += 1;
}

/** The report of a group's last run; null: there was none here. */
async function reportOf(name) {
  try {
    return JSON.parse(await readFile(join(root, `.reports/mutation/${name}.json`), 'utf8'));
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    return null;
  }
}

function rowOf(file, mutants) {
  const count = (...statuses) => mutants.filter(({ status }) => statuses.includes(status)).length;
  const killed = count('Killed', 'Timeout');
  const [survived, uncovered] = [count('Survived'), count('NoCoverage')];
  const score = ((100 * killed) / (killed + survived + uncovered || 1)).toFixed(1);
  const name = `\`${file.replace('src/vault/', '')}\``;
  return `| ${name} | ${score} % | ${killed} | ${survived} | ${uncovered} | ${count('Ignored')} |`;
}

const rows = [];
for (const name of Object.keys(GROUPS)) {
  const report = await reportOf(name);
  for (const file of GROUPS[name].files.map((each) => `src/vault/${each}.ts`)) {
    rows.push(
      report === null
        ? `| \`${file.replace('src/vault/', '')}\` | no run | | | | |`
        : rowOf(file, report.files[file]?.mutants ?? []),
    );
  }
}
const head = '| File | Score | Killed | Survived | Not covered | Left out |\n| --- | --- | --- | --- | --- | --- |';
const page = await readFile(PAGE, 'utf8');
await writeFile(PAGE, page.replace(TABLE, `$1\n${head}\n${rows.toSorted().join('\n')}\n\n$2`));
await run(`prettier --write ${PAGE}`);
process.exitCode = failed > 0 ? 1 : 0;
