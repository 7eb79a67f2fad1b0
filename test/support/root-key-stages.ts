import { pbkdf2, randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { readConfig } from '../../src/config.js';
import { openRootKeys } from '../../src/root-keys.js';
import { type KmsStandIn, type KmsTrouble, startKmsStandIn } from './kms-stand-in.js';
import { type Stage, TIMEOUT_MS, type Trouble } from './root-key-battery.js';
import { createSoftHsm, type SoftHsm } from './softhsm.js';

const openWith = (settings: Record<string, string>, timeoutMs = 20_000) =>
  openRootKeys(readConfig({ ...settings, LATCHKEY_ROOT_KEY_TIMEOUT_MS: String(timeoutMs) }));

const newRootKey = async () => randomBytes(32).toString('base64');

/** Keys that are the setting itself. */
export async function createEnvStage(): Promise<Stage> {
  const settings: Record<string, string> = {};
  return {
    createKey: newRootKey,
    open: (names, timeoutMs) => {
      settings['LATCHKEY_ROOT_KEY'] = names.join(',');
      return openWith({ ...settings }, timeoutMs);
    },
    disable: async () => undefined,
    noticesAtOnce: false,
    disabledReason: 'root-key-missing',
    troubles: [
      {
        name: 'the setting is gone',
        reason: null,
        begin: () => void delete settings['LATCHKEY_ROOT_KEY'],
        end: () => undefined,
      },
    ],
  };
}

/** Keys in a file. */
export async function createFileStage(): Promise<Stage> {
  const folder = await mkdtemp(join(tmpdir(), 'latchkey-root-keys-'));
  afterAll(() => rm(folder, { recursive: true, force: true }));
  let path = '';
  return {
    createKey: newRootKey,
    open: async (names, timeoutMs) => {
      path = join(folder, randomUUID());
      await writeFile(path, names.join('\n'), { mode: 0o600 });
      return openWith({ LATCHKEY_ROOT_KEY_PROVIDER: 'file', LATCHKEY_ROOT_KEY_FILE: path }, timeoutMs);
    },
    disable: async () => undefined,
    noticesAtOnce: false,
    disabledReason: 'root-key-missing',
    troubles: [
      {
        name: 'the file is gone',
        reason: null,
        begin: () => rename(path, `${path}.away`),
        end: () => rename(`${path}.away`, path),
      },
    ],
  };
}

export const pkcs11Settings = (hsm: SoftHsm, labels: readonly string[]) => ({
  LATCHKEY_ROOT_KEY_PROVIDER: 'pkcs11',
  LATCHKEY_PKCS11_MODULE: hsm.module,
  LATCHKEY_PKCS11_TOKEN: hsm.tokenLabel,
  LATCHKEY_PKCS11_PIN_FILE: hsm.pinFile,
  LATCHKEY_PKCS11_KEYS: labels.join(','),
});

/** Keys in a token of SoftHSM. */
export async function createPkcs11Stage(): Promise<Stage> {
  const hsm = await createSoftHsm();
  return {
    createKey: async () => {
      const label = `root-${randomUUID()}`;
      await hsm.createKey(label);
      return label;
    },
    open: (names, timeoutMs) => openWith(pkcs11Settings(hsm, names), timeoutMs),
    disable: hsm.deleteKey,
    noticesAtOnce: true,
    disabledReason: 'root-key-denied',
    troubles: [
      { name: 'the token is removed', reason: 'provider-failed', begin: hsm.hide, end: hsm.show },
      { name: 'the slot is empty', reason: 'provider-failed', begin: hsm.takeOut, end: hsm.putBack },
      slowToken(),
    ],
  };
}

/** The token gets no thread to answer on: what else the process does has them all, for longer than callers wait. */
function slowToken(): Trouble {
  let busy: Promise<void>[] = [];
  const hash = (iterations: number) =>
    new Promise<void>((resolve) => pbkdf2('a', 'b', iterations, 32, 'sha512', () => resolve()));
  return {
    name: 'the token is slow',
    reason: 'provider-failed',
    begin: async () => {
      const sample = 20_000;
      const sinceMs = performance.now();
      await hash(sample);
      const perMs = sample / (performance.now() - sinceMs);
      busy = Array.from({ length: 4 }, () => hash(Math.ceil(perMs * TIMEOUT_MS * 1.5)));
    },
    end: async () => void (await Promise.all(busy)),
  };
}

/** For the default chain of the AWS SDK, which looks into the environment first. */
export function useCredentials({ accessKeyId, secretAccessKey }: KmsStandIn['credentials']): void {
  process.env['AWS_ACCESS_KEY_ID'] = accessKeyId;
  process.env['AWS_SECRET_ACCESS_KEY'] = secretAccessKey;
}

/** Where the AWS SDK looks for KMS by itself; null: at the public endpoints. */
export function useKmsEndpoint(url: string | null): void {
  if (url === null) delete process.env['AWS_ENDPOINT_URL_KMS'];
  else process.env['AWS_ENDPOINT_URL_KMS'] = url;
}

export const kmsSettings = (kms: KmsStandIn, arns: readonly string[]) => ({
  LATCHKEY_ROOT_KEY_PROVIDER: 'aws-kms',
  LATCHKEY_AWS_KMS_KEYS: arns.join(','),
  LATCHKEY_AWS_KMS_ENDPOINT: kms.endpoint,
});

/** Keys in the stand-in of AWS KMS. */
export async function createKmsStage(): Promise<Stage> {
  const kms = await startKmsStandIn();
  afterAll(() => kms.stop());
  useCredentials(kms.credentials);
  const trouble = (name: KmsTrouble): Trouble => ({
    name,
    reason: 'provider-failed',
    begin: () => void (kms.trouble = name),
    end: () => void (kms.trouble = null),
  });
  return {
    createKey: async () => kms.createKey(),
    open: (names, timeoutMs) => openWith(kmsSettings(kms, names), timeoutMs),
    disable: async (arn) => {
      const key = kms.keys.get(arn);
      if (key !== undefined) key.state = 'Disabled';
    },
    noticesAtOnce: true,
    disabledReason: 'root-key-denied',
    troubles: [
      trouble('silent'),
      trouble('throttled'),
      trouble('internal'),
      trouble('hang-up'),
      { name: 'it is down', reason: 'provider-failed', begin: kms.stop, end: kms.start },
    ],
  };
}
