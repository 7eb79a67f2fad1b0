import { createCipheriv, createDecipheriv, createHash, createHmac, randomBytes, randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';

/** What the stand-in answers instead of doing it. */
export type KmsTrouble = 'silent' | 'throttled' | 'internal' | 'hang-up';

interface KmsKey {
  secret: Buffer;
  state: 'Enabled' | 'Disabled' | 'PendingDeletion';
}

/**
 * A stand-in of AWS KMS: `Encrypt` and `Decrypt` of its JSON protocol, with signatures checked as AWS does (SigV4).
 * A real HTTP server with keys of its own, which it never gives out.
 */
export interface KmsStandIn {
  readonly endpoint: string;
  readonly credentials: { accessKeyId: string; secretAccessKey: string };
  /** Makes a key. @returns its ARN. */
  createKey(region?: string): string;
  keys: Map<string, KmsKey>;
  /** The operations that were asked for, each as often as it was. */
  journal: { operation: string; keyId: string; context: Record<string, string> }[];
  /** Null: it works. */
  trouble: KmsTrouble | null;
  /** Before anything else, so many requests are throttled. */
  throttleNext: number;
  /** The next request that is signed is refused with this error. */
  refuseNext: string | null;
  /** Changes the answers to what succeeds. */
  spoil: (answer: Record<string, string>) => Record<string, string | undefined>;
  /** Connections that clients hold open. */
  connections(): Promise<number>;
  stop(): Promise<void>;
  /** On the same port, with the same keys. */
  start(): Promise<void>;
}

const SERVICE = 'kms';
const sha256 = (data: string | Buffer) => createHash('sha256').update(data).digest('hex');
const hmac = (key: string | Buffer, data: string) => createHmac('sha256', key).update(data).digest();

export async function startKmsStandIn(): Promise<KmsStandIn> {
  const credentials = {
    accessKeyId: `AKIA${randomBytes(8).toString('hex').toUpperCase()}`,
    secretAccessKey: 'SECRET-kms',
  };
  let port = 0;
  const server = createServer((request, response) => void answer(request, response));
  // Who lets go of a connection is the client.
  server.keepAliveTimeout = 60_000;
  const start = () =>
    new Promise<void>((resolve) => {
      server.listen(port, '127.0.0.1', () => {
        port = (server.address() as AddressInfo).port;
        resolve();
      });
    });
  await start();

  const standIn: KmsStandIn = {
    endpoint: `http://127.0.0.1:${port}`,
    credentials,
    keys: new Map(),
    journal: [],
    trouble: null,
    throttleNext: 0,
    refuseNext: null,
    spoil: (answer) => answer,
    connections: () => promisify(server.getConnections.bind(server))(),
    createKey: (region = 'eu-central-1') => {
      const arn = `arn:aws:kms:${region}:111122223333:key/${randomUUID()}`;
      standIn.keys.set(arn, { secret: randomBytes(32), state: 'Enabled' });
      return arn;
    },
    start,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    const send = (status: number, value: object) => {
      response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1', 'x-amzn-requestid': randomUUID() });
      response.end(JSON.stringify(value));
    };
    const refuse = (status: number, type: string) => send(status, { __type: type, message: `SECRET of ${type}` });
    if (standIn.trouble === 'silent') return;
    if (standIn.trouble === 'hang-up') return void request.socket.destroy();
    if (standIn.trouble === 'internal') return refuse(500, 'KMSInternalException');
    if (standIn.throttleNext > 0) {
      standIn.throttleNext -= 1;
      return refuse(400, 'ThrottlingException');
    }
    if (standIn.trouble === 'throttled') return refuse(400, 'ThrottlingException');
    if (!isSigned(request, body, credentials)) return refuse(400, 'InvalidSignatureException');
    if (request.headers['content-type'] !== 'application/x-amz-json-1.1') return refuse(400, 'SerializationException');

    const operation = /^TrentService\.(Encrypt|Decrypt)$/.exec(String(request.headers['x-amz-target']))?.[1];
    const input = JSON.parse(body.toString()) as {
      KeyId: string;
      Plaintext?: string;
      CiphertextBlob?: string;
      EncryptionContext: Record<string, string>;
    };
    const context = input.EncryptionContext;
    standIn.journal.push({ operation: operation ?? 'unknown', keyId: input.KeyId, context });
    const refusal = standIn.refuseNext;
    standIn.refuseNext = null;
    if (refusal !== null) return refuse(400, refusal);
    const key = standIn.keys.get(input.KeyId);
    if (key === undefined) return refuse(400, 'NotFoundException');
    if (key.state === 'Disabled') return refuse(400, 'DisabledException');
    if (key.state === 'PendingDeletion') return refuse(400, 'KMSInvalidStateException');
    const bound = Buffer.from(JSON.stringify(Object.entries(context).toSorted(([a], [b]) => (a < b ? -1 : 1))));
    const common = { KeyId: input.KeyId, EncryptionAlgorithm: 'SYMMETRIC_DEFAULT' };
    if (operation === 'Encrypt') {
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', key.secret, nonce).setAAD(bound);
      const sealed = [cipher.update(Buffer.from(input.Plaintext ?? '', 'base64')), cipher.final()];
      const blob = Buffer.concat([Buffer.from(sha256(input.KeyId), 'hex'), nonce, ...sealed, cipher.getAuthTag()]);
      return send(200, standIn.spoil({ CiphertextBlob: blob.toString('base64'), ...common }));
    }
    if (operation !== 'Decrypt') return refuse(400, 'UnknownOperationException');
    const blob = Buffer.from(input.CiphertextBlob ?? '', 'base64');
    const sealedWith = [...standIn.keys.keys()].find((arn) => sha256(arn) === blob.toString('hex', 0, 32));
    if (sealedWith === undefined || blob.length < 60) return refuse(400, 'InvalidCiphertextException');
    if (sealedWith !== input.KeyId) return refuse(400, 'IncorrectKeyException');
    try {
      const decipher = createDecipheriv('aes-256-gcm', key.secret, blob.subarray(32, 44), { authTagLength: 16 });
      decipher.setAAD(bound).setAuthTag(blob.subarray(-16));
      const plain = Buffer.concat([decipher.update(blob.subarray(44, -16)), decipher.final()]);
      return send(200, standIn.spoil({ Plaintext: plain.toString('base64'), ...common }));
    } catch {
      return refuse(400, 'InvalidCiphertextException');
    }
  }

  return standIn;
}

/** AWS Signature Version 4, worked out anew from the request. */
function isSigned({ method, url, headers }: IncomingMessage, body: Buffer, credentials: KmsStandIn['credentials']) {
  const parts =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([a-z0-9-]+)\/kms\/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$/.exec(
      headers.authorization ?? '',
    );
  if (parts === null) return false;
  const [, accessKeyId, day, region, signed = '', signature] = parts as unknown as string[];
  const names = signed.split(';');
  if (
    accessKeyId !== credentials.accessKeyId ||
    !['host', 'x-amz-date', 'x-amz-target'].every((name) => names.includes(name))
  )
    return false;
  const lines = names.map((name) => `${name}:${String(headers[name]).trim()}\n`).join('');
  const canonical = [method, url, '', lines, signed, sha256(body)].join('\n');
  const scope = `${day}/${region}/${SERVICE}/aws4_request`;
  const toSign = ['AWS4-HMAC-SHA256', headers['x-amz-date'], scope, sha256(canonical)].join('\n');
  const key = [region ?? '', SERVICE, 'aws4_request'].reduce<Buffer>(
    (derived, part) => hmac(derived, part),
    hmac(`AWS4${credentials.secretAccessKey}`, day ?? ''),
  );
  return hmac(key, toSign).toString('hex') === signature;
}
