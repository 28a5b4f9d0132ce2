"""A paper exchange as one writes it in an afternoon: FastAPI, pydantic, PyJWT, dicts, floats, nothing on disk.

`python -m bench.peers.student_exchange PORT`. Users and money by POST /register and POST /deposit.
"""

import sys
import time
import uuid
from datetime import UTC, datetime
from typing import Any, Literal

import jwt
import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

SECRET = "a secret of thirty-two bytes or more"
TOKEN_S = 12 * 3600

app = FastAPI()
bearer = HTTPBearer()

users: dict[str, str] = {}
balances: dict[str, dict[str, dict[str, float]]] = {}
orders: dict[str, dict[str, Any]] = {}
touch: dict[str, dict[str, float]] = {
    "BTCUSDT": {"bid": 61837.62, "ask": 61837.63},
    "ETHUSDT": {"bid": 2431.11, "ask": 2431.12},
}


class Credentials(BaseModel):
    username: str = Field(min_length=3, max_length=32)
    password: str = Field(min_length=4, max_length=128)


class DepositRequest(BaseModel):
    asset: str
    amount: float = Field(gt=0)


class OrderRequest(BaseModel):
    token_id: str = Field(min_length=1, max_length=128)
    symbol: str
    side: Literal["buy", "sell"]
    order_type: Literal["limit", "market"] = "limit"
    price: float | None = Field(default=None, gt=0)
    quantity: float = Field(gt=0)


async def current_user(credentials: HTTPAuthorizationCredentials = Depends(bearer)) -> str:  # noqa: B008 - its idiom
    try:
        claims = jwt.decode(credentials.credentials, SECRET, algorithms=["HS256"])
    except jwt.PyJWTError:
        raise HTTPException(401, "invalid token") from None
    if claims["sub"] not in users:
        raise HTTPException(401, "unknown user")
    return str(claims["sub"])


@app.post("/register", status_code=201)
async def register(credentials: Credentials) -> dict[str, Any]:
    if credentials.username in users:
        raise HTTPException(400, "username is taken")
    users[credentials.username] = credentials.password
    balances[credentials.username] = {}
    claims = {"sub": credentials.username, "exp": int(time.time()) + TOKEN_S}
    return {"access_token": jwt.encode(claims, SECRET, algorithm="HS256"), "token_type": "bearer"}


@app.post("/deposit")
async def deposit(request: DepositRequest, user: str = Depends(current_user)) -> dict[str, Any]:
    balance = _balance(user, request.asset)
    balance["total"] += request.amount
    balance["available"] += request.amount
    return {"status": "ok", "new_balance": balance["total"]}


@app.get("/balance")
async def balance(user: str = Depends(current_user)) -> dict[str, Any]:
    return {
        "balances": [{"asset": asset, **amounts} for asset, amounts in sorted(balances[user].items())],
        "total": {asset: amounts["total"] for asset, amounts in balances[user].items()},
        "available": {asset: amounts["available"] for asset, amounts in balances[user].items()},
    }


@app.post("/orders", status_code=201)
async def place_order(request: OrderRequest, user: str = Depends(current_user)) -> dict[str, Any]:
    if request.token_id in orders:
        raise HTTPException(400, "duplicate token_id")
    if request.symbol not in touch:
        raise HTTPException(400, "unknown symbol")
    if request.order_type == "limit" and request.price is None:
        raise HTTPException(422, "a limit order needs a price")
    best = touch[request.symbol]["ask" if request.side == "buy" else "bid"]
    price = best if request.price is None or request.order_type == "market" else request.price
    base, quote = request.symbol[:-4], request.symbol[-4:]
    held_asset, held = (quote, price * request.quantity) if request.side == "buy" else (base, request.quantity)
    balance = _balance(user, held_asset)
    if balance["available"] < held:
        raise HTTPException(400, "insufficient balance")
    balance["available"] -= held
    balance["reserved"] += held
    now = datetime.now(UTC)
    order: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "user_id": user,
        **request.model_dump(),
        "price": price,
        "filled_quantity": 0.0,
        "execution_price": None,
        "status": "open",
        "created_at": now,
        "executed_at": None,
    }
    orders[request.token_id] = order
    if best <= price if request.side == "buy" else best >= price:
        _execute(order, best, held, base, quote)
    return order


def _execute(order: dict[str, Any], price: float, held: float, base: str, quote: str) -> None:
    quantity = order["quantity"]
    buys = order["side"] == "buy"
    paid, received = (_balance(order["user_id"], asset) for asset in ((quote, base) if buys else (base, quote)))
    cost, gain = (price * quantity, quantity) if buys else (quantity, price * quantity)
    paid["reserved"] -= held
    paid["available"] += held - cost
    paid["total"] -= cost
    received["total"] += gain
    received["available"] += gain
    order.update(status="filled", filled_quantity=quantity, execution_price=price, executed_at=datetime.now(UTC))


def _balance(user: str, asset: str) -> dict[str, float]:
    return balances[user].setdefault(asset, {"total": 0.0, "available": 0.0, "reserved": 0.0})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", log_level="critical", access_log=False)
