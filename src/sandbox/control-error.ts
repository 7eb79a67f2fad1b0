/** A request to the control API that cannot be carried out. `status` is what the HTTP form of it answers. */
export class ControlError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.name = 'ControlError';
    this.status = status;
  }
}
