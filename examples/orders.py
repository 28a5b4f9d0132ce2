"""Orders on the paper exchange: place, amend, cancel, and what becomes of the balances.

python examples/orders.py --url http://127.0.0.1:8000
"""

import argparse
import secrets
from decimal import Decimal

from router_client import DEFAULT_URL, APIClient, DuplicateTokenId, Order, Refused

SYMBOL = "BTCUSDT"
CENT = Decimal("0.01")


def show(what: str, order: Order) -> None:
    print(f"{what}: {order.side} {order.quantity} {order.symbol} at {order.price}, {order.status}")


def show_balances(client: APIClient) -> None:
    for balance in client.balance().balances:
        if balance.total:
            print(f"    {balance.asset}: {balance.total} in total, {balance.reserved} of it held by orders")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=DEFAULT_URL)
    url = parser.parse_args().url

    with APIClient(url) as client:
        client.register(f"orders-{secrets.token_hex(4)}", "password123")
        client.deposit("USDT", 100_000)

        bought = client.place_order(SYMBOL, "buy", "0.1", order_type="market")
        show("market order", bought)
        for fill in bought.fills:
            print(f"    {fill.quantity} at {fill.price} on {fill.exchange}, because {fill.rule}")

        # A limit order rests until the market comes to its price. Its money is held meanwhile.
        limit = (client.get_orderbook(SYMBOL, depth=1).bids[0].price * Decimal("0.9")).quantize(CENT)
        resting = client.place_order(SYMBOL, "buy", "0.2", limit, token_id=f"my-{secrets.token_hex(4)}")
        show("limit order", resting)
        show_balances(client)

        show("amended", client.amend_order(resting.token_id, price=limit - 1, quantity="0.3"))
        show("cancelled", client.cancel_order(resting.token_id))
        show_balances(client)

        # Whatever is displayed at the touch, up to the quantity; the rest is cancelled.
        show("immediate or cancel", client.place_order(SYMBOL, "sell", "0.05", order_type="ioc"))

        try:
            client.place_order(SYMBOL, "buy", 1, 1, token_id=resting.token_id)
        except DuplicateTokenId as refused:
            print(f"a name is used once: {refused}")
        try:
            client.place_order(SYMBOL, "buy", 1_000, limit)
        except Refused as refused:
            print(f"no credit here: {refused}")

        print("all orders, newest first:")
        for order in client.iter_orders():
            print(
                f"    {order.token_id}: {order.order_type} {order.side}, {order.status}, {order.filled_quantity} filled"
            )


if __name__ == "__main__":
    main()
