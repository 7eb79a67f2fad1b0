import { createHash } from 'node:crypto';
import type * as Sdk from '@aws-sdk/client-kms';
import { KEY_BYTES } from './aead.js';
import { withinDeadline } from './deadline.js';
import { RootKeyInvalidError, VaultUnavailableError, type VaultUnavailableReason } from './errors.js';
import type { KeyContext, RootKeyProvider } from './root-key.js';
import { bodyOf, joinWrapped } from './wrapped-key.js';

export interface AwsKmsSettings {
  /** Of symmetric encryption keys, newest first; at least one. Each names its region. */
  keyArns: readonly string[];
  /** Null: the public endpoint of the key's region. */
  endpoint: string | null;
  /** Longest that a caller waits, attempts that are repeated included. */
  timeoutMs: number;
  /** Another source than the environment, files, and the metadata of the machine, as the AWS SDK looks for them. */
  credentials?: NonNullable<Sdk.KMSClientConfig['credentials']>;
}

const ARN = /^arn:aws[a-z-]*:kms:([a-z0-9-]+):\d{12}:key\/[A-Za-z0-9-]+$/;
const ATTEMPTS = 3;
const CHECK_CONTEXT = 'latchkey aws kms key check';
const PROBE: KeyContext = { owner: 'health', keyId: 'health', keyVersion: 0 };

/** What there is to tell is told by our errors. */
const SILENT = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

/** What the answer of KMS to a request that it refuses says of the wrapped key, or of the root key. */
const REFUSALS: Readonly<Record<string, VaultUnavailableReason>> = {
  InvalidCiphertextException: 'wrapped-key-refused',
  IncorrectKeyException: 'wrapped-key-refused',
  AccessDeniedException: 'root-key-denied',
  DisabledException: 'root-key-denied',
  InvalidKeyUsageException: 'root-key-denied',
  KMSInvalidStateException: 'root-key-denied',
  NotFoundException: 'root-key-denied',
};

/** Whether a text is the ARN of a KMS key, as opposed to that of an alias, which may name another key tomorrow. */
export const isKmsKeyArn = (text: string): boolean => ARN.test(text);

/**
 * Root keys in AWS KMS, which they never leave: tenant keys are sent there and come back, over TLS, with what they are
 * bound to as the encryption context. KMS logs that context (CloudTrail).
 *
 * Asks nothing yet. Throttled and failed requests are repeated within the deadline.
 *
 * @throws {RootKeyInvalidError} a text is not the ARN of a key, or the AWS SDK is not installed.
 */
export async function createAwsKmsRootKeys(settings: AwsKmsSettings): Promise<RootKeyProvider> {
  const { keyArns, timeoutMs, endpoint, credentials } = settings;
  const sdk = await loadSdk();
  const clients = new Map<string, Sdk.KMSClient>();
  const clientOf = (arn: string): Sdk.KMSClient => {
    const region = ARN.exec(arn)?.[1];
    if (region === undefined) throw new RootKeyInvalidError(`"${arn}" is not the ARN of a KMS key.`);
    const client =
      clients.get(region) ??
      new sdk.KMSClient({
        region,
        maxAttempts: ATTEMPTS,
        logger: SILENT,
        ...(endpoint === null ? {} : { endpoint }),
        ...(credentials === undefined ? {} : { credentials }),
      });
    clients.set(region, client);
    return client;
  };
  const keys = keyArns.map((arn) => ({ arn, id: `aws-kms:${arn}`, client: clientOf(arn) }));
  const keyOf = (rootKeyId: string | undefined) => {
    const key = keys.find(({ id }) => id === rootKeyId);
    if (key === undefined) throw new VaultUnavailableError('root-key-missing');
    return key;
  };

  const wrap: RootKeyProvider['wrap'] = async (plain, context) => {
    const { id, arn, client } = keyOf(keys[0]?.id);
    const command = new sdk.EncryptCommand({
      KeyId: arn,
      Plaintext: plain,
      EncryptionContext: encryptionContextOf(context),
    });
    const answer = await ask(timeoutMs, (abortSignal) => client.send(command, { abortSignal }));
    if (answer.CiphertextBlob === undefined || answer.KeyId !== arn) throw unexpected();
    return { rootKeyId: id, blob: joinWrapped('aws-kms', answer.CiphertextBlob) };
  };

  const unwrap: RootKeyProvider['unwrap'] = async (rootKeyId, blob, context) => {
    const { arn, client } = keyOf(rootKeyId);
    const body = bodyOf('aws-kms', blob);
    // What KMS makes is longer than the key in it; it refuses nothing at all in words of its own.
    if (body === null || body.length <= KEY_BYTES) throw new VaultUnavailableError('wrapped-key-refused');
    const command = new sdk.DecryptCommand({
      KeyId: arn,
      CiphertextBlob: body,
      EncryptionContext: encryptionContextOf(context),
    });
    const answer = await ask(timeoutMs, (abortSignal) => client.send(command, { abortSignal }));
    if (answer.Plaintext === undefined || answer.KeyId !== arn) throw unexpected();
    return answer.Plaintext;
  };

  return {
    wrap,
    unwrap,
    // No check value could tell more than the ARN: it is never given to a second key.
    describe: async () => keys.map(({ id }) => ({ id, checkValue: digest(id) })),
    health: async () => {
      const { rootKeyId, blob } = await wrap(new Uint8Array(KEY_BYTES), PROBE);
      await unwrap(rootKeyId, blob, PROBE);
    },
    close: async () => {
      for (const client of clients.values()) client.destroy();
    },
  };
}

async function loadSdk(): Promise<typeof Sdk> {
  try {
    return await import('@aws-sdk/client-kms');
  } catch {
    throw new RootKeyInvalidError('AWS KMS needs the package @aws-sdk/client-kms: npm install --include=optional');
  }
}

const encryptionContextOf = ({ owner, keyId, keyVersion }: KeyContext): Record<string, string> => ({
  'latchkey:owner': owner,
  'latchkey:key-id': keyId,
  'latchkey:key-version': String(keyVersion),
});

const digest = (id: string): Buffer => createHash('sha256').update(CHECK_CONTEXT).update(id).digest();

/** The SDK's errors hold whole answers: nothing is taken over of them but the name, the status and the request's id. */
async function ask<T>(timeoutMs: number, send: (signal: AbortSignal) => Promise<T>): Promise<T> {
  try {
    return await withinDeadline(timeoutMs, send);
  } catch (error) {
    if (error instanceof VaultUnavailableError) throw error;
    const { name, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number; requestId?: string } };
    const { httpStatusCode: status = 'none', requestId = 'none' } = $metadata ?? {};
    const cause = new Error(`AWS KMS: ${name}, status ${status}, request ${requestId}`);
    throw new VaultUnavailableError(REFUSALS[name] ?? 'provider-failed', { cause });
  }
}

const unexpected = () =>
  new VaultUnavailableError('provider-failed', { cause: new Error('AWS KMS answered something else than asked for') });
