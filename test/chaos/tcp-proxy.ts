import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

/**
 * What a proxy does with connections, the present ones and those to come:
 *
 * - `pass`: hands on what comes, `delayMs` later.
 * - `blackhole`: accepts, reads, and hands nothing on, in neither direction; nobody is told.
 * - `half-open`: hands requests on and drops the answers.
 * - `reset`: cuts what is open with RST, and whatever is opened.
 */
export type ProxyMode = { kind: 'pass'; delayMs?: number } | { kind: 'blackhole' | 'half-open' | 'reset' };

export interface TcpProxy {
  readonly port: number;
  /** Present connections are affected, too: one that was silent for a time goes on where it was cut off in thought. */
  become(mode: ProxyMode): void;
  /** Only connections that are open now fall silent; new ones are as the mode says. */
  silencePresent(): void;
  /** How many connections are open. */
  open(): number;
  close(): Promise<void>;
}

interface Pair {
  near: Socket;
  far: Socket;
  isSilent: boolean;
}

/** A TCP proxy on a loopback port, whose connections can be made to misbehave. `target` is asked for each connection. */
export async function startTcpProxy(target: () => number | null): Promise<TcpProxy> {
  const pairs = new Set<Pair>();
  let mode: ProxyMode = { kind: 'pass' };

  const cut = ({ near, far }: Pair): void => {
    near.resetAndDestroy();
    far.destroy();
  };

  function handOn(pair: Pair, from: Socket, to: Socket, isAnswer: boolean): void {
    from.on('data', (chunk: Buffer) => {
      if (pair.isSilent || mode.kind === 'blackhole' || (mode.kind === 'half-open' && isAnswer)) return;
      const delayMs = mode.kind === 'pass' ? (mode.delayMs ?? 0) : 0;
      if (delayMs === 0) to.write(chunk);
      else setTimeout(() => to.writable && to.write(chunk), delayMs);
    });
    // Who hears nothing does not hear of the end either.
    from.on('end', () => {
      if (!pair.isSilent && mode.kind === 'pass') to.end();
    });
    from.on('error', () => to.destroy());
    from.on('close', () => {
      pairs.delete(pair);
      to.destroy();
    });
  }

  const server = createServer({ allowHalfOpen: true }, (near) => {
    const port = target();
    if (mode.kind === 'reset' || port === null) {
      near.on('error', () => undefined);
      near.resetAndDestroy();
      return;
    }
    const far = connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true });
    near.setNoDelay(true);
    const pair: Pair = { near, far, isSilent: false };
    pairs.add(pair);
    handOn(pair, near, far, false);
    handOn(pair, far, near, true);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });

  return {
    port: (server.address() as AddressInfo).port,
    become: (next) => {
      mode = next;
      if (next.kind === 'reset') for (const pair of pairs) cut(pair);
    },
    silencePresent: () => {
      for (const pair of pairs) pair.isSilent = true;
    },
    open: () => pairs.size,
    close: () => {
      for (const pair of pairs) cut(pair);
      return new Promise((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}
