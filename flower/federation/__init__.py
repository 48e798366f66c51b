"""The federation of the chapter on federated learning, as a Flower app: the clients' side and the server's."""
