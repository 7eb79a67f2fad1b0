import { Command, InvalidArgumentError, Option } from 'commander';
import type { AdoptOptions } from './adopt.js';
import type { ConvertOptions } from './convert-nango.js';
import type { ImportOptions } from './import.js';
import type { NewKey } from './keys.js';
import { createOutput, EXIT, type ExitCode, type Output } from './output.js';
import { connectToServer, type Server } from './server.js';
import type { VerifyAuditOptions } from './verify-audit.js';

// Commands load what they need when they run: most need no database, and are done before it would be loaded.
const commands = {
  adopt: () => import('./adopt.js'),
  config: () => import('../config.js'),
  convert: () => import('./convert-nango.js'),
  doctor: () => import('./doctor.js'),
  import: () => import('./import.js'),
  keys: () => import('./keys.js'),
  rotateHere: () => import('./rotate-here.js'),
  rotateTenant: () => import('./rotate-tenant.js'),
  tenants: () => import('./tenants.js'),
  verifyAudit: () => import('./verify-audit.js'),
};

type Environment = Record<string, string | undefined>;

export interface ProgramOptions {
  version: string;
  env: Environment;
  /** Told when a command is done; not for `serve`, which goes on. */
  end(code: ExitCode): void;
}

const collect = (value: string, former: string[] = []) => [...former, value];

function wholeNumber(value: string): number {
  if (!/^[1-9]\d?$/.test(value)) throw new InvalidArgumentError('A whole number from 1 to 99.');
  return Number(value);
}

/** The command line. Errors of it are thrown as CommanderError. */
export function createProgram({ version, env, end }: ProgramOptions): Command {
  const program = new Command('latchkey')
    .description('Runs and looks after Latchkey.')
    .version(version)
    .option('--json', 'answer as JSON on standard output')
    .exitOverride()
    .showHelpAfterError('(latchkey --help lists the commands)')
    .addHelpText('after', '\nExit codes: 0 done, 1 failed, 2 wrong input, 3 done in part (run again).');
  const output = () => createOutput(program.opts<{ json?: boolean }>().json === true);

  /** What a command does with settings and files of this machine. */
  const here =
    <Given extends unknown[]>(run: (output: Output, ...given: Given) => Promise<ExitCode | void> | void) =>
    async (...given: unknown[]) =>
      end((await run(output(), ...(given as Given))) ?? EXIT.done);
  /** What it does with a running server. */
  const there = <Given extends unknown[]>(
    run: (server: Server, output: Output, ...given: Given) => Promise<ExitCode | void>,
  ) => here<Given>(async (out, ...given) => run(await connectToServer(env), out, ...given));

  program
    .command('serve')
    .description('start the server with the settings of the environment')
    .action(async () => {
      // The very server of `npm start`, in this process, so that signals reach it.
      await import(new URL('../main.js', import.meta.url).href);
    });
  program
    .command('doctor')
    .description('check settings, root key, database, clock, public URL and webhooks, and tell what mends them')
    .action(here(async (out) => (await commands.doctor()).doctor(env, out)));
  addKeys(program, there);
  addTenants(program, there);
  program
    .command('import')
    .argument('<file>', 'JSON Lines, see docs/cli.md')
    .description('import connections from another system; run again to go on')
    .option('--dry-run', 'check the file, tenants and apps, and import nothing')
    .option('--concurrency <n>', 'imports at a time', wholeNumber, 4)
    .action(
      there<[string, ImportOptions]>(async (server, out, file, options) =>
        (await commands.import()).importFile(server, out, file, options),
      ),
    );
  program
    .command('convert')
    .addArgument(program.createArgument('<system>', 'whose export it is').choices(['nango']))
    .argument('<file>', 'connections as the API of that system answers them')
    .description('make an import file of the export of another system')
    .requiredOption('--output <file>', 'the import file to make')
    .requiredOption('--app <integration=appId>', 'our app for an integration; repeat for several', collect)
    .option('--installation <integration>', 'its connections are installations; repeat for several', collect, [])
    .option('--tenant <id>', 'tenant of connections that name no organisation')
    .action(
      here<[string, string, ConvertOptions]>(async (out, _system, file, options) =>
        (await commands.convert()).convertNango(out, file, options),
      ),
    );
  addRotate(program, { here, there, env });
  program
    .command('adopt')
    .description('make a copied or restored database the own of this deployment')
    .option('--restored', 'also where nothing shows that it was restored, as after a snapshot')
    .option('--force', 'also while another deployment shows signs of life')
    .addOption(new Option('--release', 'let refreshes go on that were held after a restore').conflicts(['restored']))
    .action(
      here<[AdoptOptions]>(async (out, options) => {
        const { readConfig } = await commands.config();
        return (await commands.adopt()).adopt(readConfig(env), out, options);
      }),
    );
  program
    .command('verify-audit')
    .description('tell whether anything of the audit trail was removed or altered; asks the database itself')
    .option('--tenant <id>', 'the chain of one tenant alone')
    .option('--heads <file>', 'what an earlier run printed with --json, which the trail must go on from')
    .action(
      here<[VerifyAuditOptions]>(async (out, options) => {
        const { readConfig } = await commands.config();
        return (await commands.verifyAudit()).verifyAuditTrail(readConfig(env), out, options);
      }),
    );
  return program;
}

type There = <Given extends unknown[]>(
  run: (server: Server, output: Output, ...given: Given) => Promise<ExitCode | void>,
) => (...given: unknown[]) => Promise<void>;
type Here = <Given extends unknown[]>(
  run: (output: Output, ...given: Given) => Promise<ExitCode | void> | void,
) => (...given: unknown[]) => Promise<void>;

function addKeys(program: Command, there: There): void {
  const keys = program.command('keys').description('server keys');
  keys
    .command('create')
    .description('make a server key, which is printed this once')
    .requiredOption('--name <name>', 'a name to show')
    .requiredOption('--permission <permission>', 'what it may do; repeat for several', collect)
    .option('--tenant <id>', 'the only tenant that it reaches')
    .option('--expires <time>', 'until when it is good, such as 2027-01-31T00:00:00Z')
    .action(there<[NewKey]>(async (server, out, options) => (await commands.keys()).createKey(server, out, options)));
  keys
    .command('list')
    .description('list server keys')
    .action(there(async (server, out) => (await commands.keys()).listKeys(server, out)));
  keys
    .command('revoke')
    .argument('<id>')
    .description('end a server key at once')
    .action(there<[string]>(async (server, out, id) => (await commands.keys()).revokeKey(server, out, id)));
}

function addTenants(program: Command, there: There): void {
  const tenants = program.command('tenants').description('tenants');
  tenants
    .command('list')
    .description('list tenants')
    .action(there(async (server, out) => (await commands.tenants()).listTenants(server, out)));
  tenants
    .command('create')
    .argument('<id>', 'your own identifier')
    .description('make a tenant')
    .option('--name <name>', 'a name to show')
    .option('--origin <origin>', 'where connect flows may return to; repeat for several', collect, [])
    .action(
      there<[string, { name?: string; origin: string[] }]>(async (server, out, id, options) =>
        (await commands.tenants()).createTenant(server, out, id, options),
      ),
    );
  tenants
    .command('delete')
    .argument('<id>', 'your own identifier')
    .description('end the connections of a tenant and destroy its keys')
    .option('--confirm <id>', 'the identifier once more, where nobody can be asked')
    .action(
      there<[string, { confirm?: string }]>(async (server, out, id, options) =>
        (await commands.tenants()).deleteTenant(server, out, id, options),
      ),
    );
}

function addRotate(program: Command, { here, there, env }: { here: Here; there: There; env: Environment }): void {
  const rotate = program.command('rotate').description('rotate keys');
  rotate
    .command('tenant')
    .argument('<id>', 'your own identifier')
    .description('give a tenant a new version of its key')
    .action(there<[string]>(async (server, out, id) => (await commands.rotateTenant()).rotateTenant(server, out, id)));
  rotate
    .command('system')
    .description('give the system a new version of its key; asks the database itself')
    .action(
      here(async (out) => {
        const { readConfig } = await commands.config();
        return (await commands.rotateHere()).rotateSystem(readConfig(env), out);
      }),
    );
  rotate
    .command('root')
    .description('wrap every key with the newest of the given root keys; asks the database itself')
    .option('--generate', 'print a new root key instead')
    .action(
      here<[{ generate?: boolean }]>(async (out, { generate }) => {
        const { generateRootKey, rotateRoot } = await commands.rotateHere();
        if (generate === true) return generateRootKey(out);
        const { readConfig } = await commands.config();
        return rotateRoot(readConfig(env), out);
      }),
    );
}
